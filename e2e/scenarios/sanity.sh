#!/bin/bash
# The CSI conformance suite against the driver in the cluster, controller and node service.
NEEDS=cluster
check csi "csi-sanity, on the node of the CSI controller." 600

csi() {
  local pod n uid dir
  private_target 40Gi
  pod=$(k get pod -n "$NS" -l app.kubernetes.io/component=csi-controller -o jsonpath='{.items[0].metadata.name}')
  n=$(k get pod -n "$NS" "$pod" -o jsonpath='{.spec.nodeName}') n=${n#node}
  uid=$(k get pod -n "$NS" "$pod" -o jsonpath='{.metadata.uid}')
  dir=/var/lib/kubelet/sanity
  # A unix socket's name has 107 bytes at most: the controller's is reached by a link.
  node "$n" sh -ec "rm -rf $dir; mkdir -p $dir; printf 'target: $ID\n' >$dir/parameters
    ln -s /var/lib/kubelet/pods/$uid/volumes/kubernetes.io~empty-dir/socket $dir/controller"
  later node "$n" rm -rf "$dir"
  node "$n" csi-sanity -csi.endpoint=unix:///var/lib/kubelet/plugins/csi.roadstead.io/csi.sock \
    -csi.controllerendpoint="unix://$dir/controller/csi.sock" -csi.mountdir="$dir/mount" -csi.stagingdir="$dir/stage" \
    -csi.testvolumeparameters="$dir/parameters" -csi.testvolumesize=134217728 -csi.testvolumeexpandsize=268435456 -ginkgo.no-color
}
