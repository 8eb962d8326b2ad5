# shellcheck shell=bash
# Roadstead in the test cluster: objects, daemons, counters. After kube.sh.

# file_target NAME NODE DRIVE=SIZE...: a Target whose drives are files on that node
file_target() {
  local name=$1 n=$2 d
  shift 2
  {
    printf 'apiVersion: roadstead.io/v1alpha1\nkind: Target\nmetadata: {name: %s}\nspec:\n  node: node%s\n  drives:\n' "$name" "$n"
    for d; do
      printf '  - {name: %s, file: {path: /var/lib/roadstead/drives/%s-%s.img, size: %s}}\n' "${d%%=*}" "$name" "${d%%=*}" "${d#*=}"
    done
  } | k apply -f -
}
wait_target() { wait_condition "target/$1" Ready '^True' "${2:-60}"; }
remove_target() { # NAME NODE: and its files
  k delete target "$1" --ignore-not-found --timeout=60s
  node "$2" sh -c "rm -f /var/lib/roadstead/drives/$1-*.img"
}

# storage_class NAME TARGET [FSTYPE]
storage_class() {
  k apply -f - <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: $1}
provisioner: csi.roadstead.io
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
parameters: {target: $2, csi.storage.k8s.io/fstype: ${3:-ext4}}
Y
}
# pvc NAME SIZE CLASS [MODE]
pvc() {
  k apply -f - <<Y
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1}
spec: {storageClassName: $3, volumeMode: ${4:-Filesystem}, accessModes: [ReadWriteOnce], resources: {requests: {storage: $2}}}
Y
}
# toolbox NAME NODE PVC [READONLY]: a pod that waits, with the volume in /data
toolbox() {
  k apply -f - <<Y
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  nodeSelector: {kubernetes.io/hostname: node$2}
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "$(image_ref toolbox)", imagePullPolicy: IfNotPresent, volumeMounts: [{name: v, mountPath: /data, readOnly: ${4:-false}}]}
  volumes: [{name: v, persistentVolumeClaim: {claimName: $3}}]
Y
}
in_pod() { # POD COMMAND...
  local p=$1
  shift
  kubectl exec "$p" -- "$@"
}
volume_of() { field "pvc/$1" .spec.volumeName; } # PVC: the name of its NVMeNamespace

image_ref() { cat "$APP_IMAGES/$1.tar.ref"; }
# daemon_pod NODE: the pod of the node DaemonSet there
daemon_pod() { k get pod -n "$NS" -l app.kubernetes.io/component=node --field-selector "spec.nodeName=node$1" -o jsonpath='{.items[0].metadata.name}'; }
metrics() { curl -sS -m 5 "http://$(node_ip "$1"):7421/metrics"; }
kill_in_node() { # NODE PROCESS: SIGKILL, in that node's own PID namespace
  node "$1" pkill -KILL -x "$2"
}
