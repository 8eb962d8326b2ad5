#!/bin/bash
# drawing.sh VOLUME - who serves this volume to whom, over what: drawn from the objects' status.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
. "$E2E/lib/kube.sh"
. "$E2E/lib/roadstead.sh"
v=$1
get() { k get "$1" -o "jsonpath={$2}"; }
n=nvmenamespaces/$v
a=nvmeattachments/$(attachment_of "$v")
claim=$(get "pv/$v" '.spec.claimRef.namespace')/$(get "pv/$v" '.spec.claimRef.name')
path=$(get "$a" '.status.paths[0].transport') address=$(get "$a" '.status.paths[0].address'):$(get "$a" '.status.paths[0].port')
server=("$(get "$n" .status.node)" "" "Target $(get "$n" .status.target)" "drive $(get "$n" .status.drive)" "volume ${v:0:20}..." "roadsteadd, port ${address##*:}")
client=("$(get "$a" .spec.node)" "" "PVC $claim" "$(get "$a" .status.attachMethod): $(get "$a" .status.device)" "$(get "pv/$v" .spec.csi.fsType)" "pod postgres-0")
printf '  +%s+      %s      +%s+\n' "$(printf -- '-%.0s' {1..32})" "$(printf ' %.0s' {1..24})" "$(printf -- '-%.0s' {1..32})"
for i in "${!server[@]}"; do
  link=$(printf ' %.0s' {1..24})
  [ "$i" != 2 ] || link=$(printf '%-24s' "        NVMe/${path^^}")
  [ "$i" != 3 ] || link="<======================>"
  [ "$i" != 4 ] || link=$(printf '%-24s' "   $address")
  printf '  | %-30s |      %s      | %-30s |\n' "${server[i]:0:30}" "$link" "${client[i]:0:30}"
done
printf '  +%s+      %s      +%s+\n' "$(printf -- '-%.0s' {1..32})" "$(printf ' %.0s' {1..24})" "$(printf -- '-%.0s' {1..32})"
