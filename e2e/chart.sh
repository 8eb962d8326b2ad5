#!/bin/bash
# chart.sh - lints the Helm chart and renders it.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
"$E2E/cluster/cluster" build
cd "$ROOT"
helm lint --strict charts/roadstead
helm template roadstead charts/roadstead -n "$NS" --values e2e/values.yaml >/dev/null
