#!/bin/bash
# What an administrator has after the installation: helm test, kubectl roadstead, metrics.
NEEDS=cluster
check helm-test "helm test passes once there is a Target."
check command-line "kubectl roadstead lists targets, drives, volumes and attachments, and explains a claim."
check metrics "The operator, the CSI driver and the dataplane have metrics; the volume's counters move with its I/O and stop with it."

helm_test() { # which asks for a Target that is ready
  private_target 512Mi
  helm test roadstead -n "$NS" --timeout 90s
}

# kubectl finds a plug-in by its name in PATH.
plugin() {
  mkdir -p "$OUT/bin"
  ln -sf "$TARGET/$PROFILE/roadstead" "$OUT/bin/kubectl-roadstead"
  PATH=$OUT/bin:$PATH kubectl roadstead "$@"
}

command_line() {
  local v
  private_target 512Mi
  volume_pod p 2 data
  v=$(volume_of data)
  expect_text "$(plugin targets)" "$ID +True +node1" "the targets"
  expect_text "$(plugin drives)" "$ID +d +node1 +Online" "the drives"
  expect_text "$(plugin volumes)" "$v +True +256Mi" "the volumes"
  expect_text "$(plugin attachments)" "$v +node2 +True +fuse +/dev/loop[0-9]+ +tcp $(node_ip 1):4420 Live" "the attachments"
  expect_text "$(plugin explain pvc/data -n "$ID")" "tcp $(node_ip 1):4420 \(Live.*$ID/d" "the explanation"
  expect_text "$(plugin volumes -o json)" "\"name\": \"$v\"" "the volumes as JSON"
  refused 'no volume nonsense' plugin explain nonsense
  # The same from the node's own daemon.
  expect_text "$(kubectl exec -n "$NS" "$(daemon_pod 1)" -c roadsteadd -- roadstead --socket /run/roadstead/roadsteadd.sock volumes)" "$v +True" "the daemon's volumes"
}

metrics() {
  local v written
  private_target 512Mi
  volume_pod p 2 data
  v=$(volume_of data)
  written() { metrics_of "http://$(node_ip 1):7421" | awk -v v="volume=\"$v\"" '/written_bytes/ && index($0, v) {print $NF}'; }
  path_metric() { metrics_of "http://$(node_ip 2):7421" | awk -v v="attachment=\"$v\"" -v name="roadstead_path_$1{" 'index($0, name) == 1 && index($0, v) {print $NF}'; }
  metrics_of() { curl -sS -m 5 "$1/metrics"; }
  pod_ip() { k get pod -n "$NS" -l "app.kubernetes.io/component=$1" -o jsonpath='{.items[0].status.podIP}'; }
  expect_text "$(metrics_of "http://$(pod_ip operator):7424")" '^roadstead_operator_' "the operator's metrics"
  expect_text "$(metrics_of "http://$(pod_ip csi-controller):7423")" '^roadstead_csi_rpc_duration_seconds_count' "the CSI controller's metrics"
  expect_text "$(metrics_of "http://$(node_ip 2):7422")" '^roadstead_csi_rpc_duration_seconds_count' "the CSI node service's metrics"
  before=$(written)
  in_pod p dd if=/dev/urandom of=/data/f bs=1M count=16 conv=fsync status=none
  [ $(($(written) - before)) -ge $((16 << 20)) ] || die "written bytes went from $before to $(written)"
  [ "$(path_metric written_bytes_total)" -ge $((16 << 20)) ] || die "the path has written $(path_metric written_bytes_total) bytes"
  expect_text "$(path_metric round_trip_seconds)" '^0\.0*[1-9]|e-' "the path's round trip"
  expect_text "$(path_metric segments_total)" '^[1-9]' "the path's segments"
  k delete pod p --timeout=60s
  until_ok 60 "the attachment is gone" no_attachment "$v"
  before=$(written)
  never_within 5 "the counter moves without a user" moved "$before"
}
moved() { [ "$(written)" != "$1" ]; }
no_attachment() { [ -z "$(k get nvmeattachments -o jsonpath="{.items[?(@.spec.namespace==\"$1\")].metadata.name}")" ]; }
