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

# storage_class NAME TARGET [FSTYPE [MORE PARAMETERS]]
storage_class() {
  k apply -f - <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: $1}
provisioner: csi.roadstead.io
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
parameters: {target: $2, csi.storage.k8s.io/fstype: ${3:-ext4}${4:+, $4}}
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

attachment_of() { k get nvmeattachments -o jsonpath="{.items[?(@.spec.namespace==\"$1\")].metadata.name}"; } # VOLUME
detached() { [ -z "$(attachment_of "$1")" ]; }

image_ref() { cat "$APP_IMAGES/$1.tar.ref"; }
# daemon_pod NODE: the pod of the node DaemonSet there
daemon_pod() { k get pod -n "$NS" -l app.kubernetes.io/component=node --field-selector "spec.nodeName=node$1" -o jsonpath='{.items[0].metadata.name}'; }
metrics() { curl -sS -m 5 "http://$(node_ip "$1"):7421/metrics"; }
kill_in_node() { # NODE PROCESS: SIGKILL, in that node's own PID namespace; one that is just starting is waited for
  until_ok 30 "a process $2 to kill on node$1" node "$1" pkill -KILL -x "$2"
}

# Drives that are block devices: loop devices over files on the node.
DRIVES=/var/lib/roadstead/drives
# loop_make NODE NAME SIZE: prints the device
loop_make() { node "$1" sh -ec "mkdir -p $DRIVES; truncate -s $3 $DRIVES/$2.loop; losetup -f --show $DRIVES/$2.loop"; }
loop_remove() { # NODE NAME
  node "$1" sh -c "for d in \$(losetup -n -O NAME -j $DRIVES/$2.loop); do losetup -d \$d; done; rm -f $DRIVES/$2.loop"
}
device_target() { # NAME NODE DEVICE [FORCE]
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: Target
metadata: {name: $1}
spec:
  node: node$2
  drives: [{name: d, path: $3, force: ${4:-false}}]
Y
}
# drive_state TARGET: "State Reason: message" of its first drive
drive_state() { k get "target/$1" -o 'jsonpath={.status.drives[0].state} {.status.drives[0].reason}: {.status.drives[0].message}'; }
drive_like() { grep -qE -- "$2" <<<"$(drive_state "$1")"; }
wait_drive() { # TARGET REGEX [SECONDS]
  local end=$((SECONDS + ${3:-60}))
  until drive_like "$1" "$2"; do
    [ "$SECONDS" -lt "$end" ] || die "the drive of $1 is '$(drive_state "$1" 2>&1)', expected /$2/"
    sleep 0.3
  done
}

# private_target DRIVE-SIZE: a Target and a StorageClass of this check alone, both named as its namespace
private_target() {
  file_target "$ID" 1 "d=$1"
  later remove_target "$ID" 1
  storage_class "$ID" "$ID" "${2:-ext4}"
  later k delete storageclass "$ID" --ignore-not-found
  wait_target "$ID"
}
# volume_pod POD NODE PVC [SIZE]: a claim of the private class and a pod that has it; both go at the end
volume_pod() {
  pvc "$3" "${4:-256Mi}" "$ID"
  later k delete pvc "$3" --ignore-not-found --timeout=60s
  toolbox "$1" "$2" "$3"
  later k delete pod "$1" --ignore-not-found --timeout=60s
  wait_pod "$1"
}
# journal_start POD LOG: a writer in the pod; the numbers of its durable records go to the log, outside of the volume
journal_start() { kubectl exec "$1" -- journal write /data/journal >"$2" 2>"$2.err" & }
enough_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
wait_lines() { until_ok "${3:-60}" "$2 lines in $1" enough_lines "$1" "$2"; } # FILE LINES [SECONDS]
more_lines() { wait_lines "$1" $(($(wc -l <"$1") + $2)) "${3:-60}"; }       # FILE MORE [SECONDS]
# journal_verify POD LOG: every record that was acknowledged is there
journal_verify() {
  local acknowledged found
  acknowledged=$(grep -cE '^[0-9]+$' "$2")
  found=$(in_pod "$1" journal last /data/journal)
  echo "acknowledged $acknowledged, found $found"
  [ "$acknowledged" -gt 0 ] || die "nothing was acknowledged"
  [ "$found" -ge "$acknowledged" ] || die "$((acknowledged - found)) acknowledged records are missing"
}
restarts() { # NODE: how often the daemon's container has been restarted
  field "pod/$(daemon_pod "$1") -n $NS" '.status.containerStatuses[?(@.name=="roadsteadd")].restartCount'
}
