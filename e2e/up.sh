#!/bin/bash
# up.sh - builds what is missing, starts the test cluster of three nodes and installs Roadstead in it. A cluster that is up
# with the same images is used as it is; one with others is replaced. With AS_IS=1 nothing is built and a cluster that is up is
# used whatever it runs: for work on the scenarios.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
for lib in kube roadstead; do . "$E2E/lib/$lib.sh"; done

if [ -n "${AS_IS:-}" ] && cluster_is_up; then exit; fi
"$E2E/build.sh" cluster
refs=$(cat "$APP_IMAGES"/{roadstead,postgres,toolbox}.tar.ref)
installed=$CLUSTER_DIR/run/installed # which images and which chart the cluster has

key=$(content_key "$refs" "$ROOT/charts/roadstead" "$E2E/values.yaml")
if cluster_is_up && [ "$(cat "$installed" 2>/dev/null)" != "$key" ]; then
  step "a cluster with other images is up: taking it down" "$CLUSTER" down
fi
if ! cluster_is_up; then
  # A dead node is noticed and its pods are moved within half a minute instead of six.
  KCM_ARGS="--node-monitor-grace-period=20s" \
    APISERVER_ARGS="--default-unreachable-toleration-seconds=10 --default-not-ready-toleration-seconds=10" \
    step "cluster of three nodes" "$CLUSTER" up --nodes 3
  step "loading the images into every node" "$CLUSTER" load "$APP_IMAGES"/{roadstead,postgres,toolbox}.tar
fi
install() {
  helm upgrade --install roadstead "$ROOT/charts/roadstead" --namespace "$NS" --create-namespace --values "$E2E/values.yaml" \
    --set "image.repository=${ref%:*}" --set "image.tag=${ref##*:}" --wait --timeout 180s
}
ref=$(image_ref roadstead)
step "helm install roadstead" install
echo "$key" >"$installed"
