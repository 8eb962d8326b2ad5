#!/bin/bash
# Every mistake that a user can write gets a clear error, and nothing is lost by it.
NEEDS=cluster
check mounted-drive "A Target that names a mounted drive is refused, with force too, and the file system is untouched."
check foreign-filesystem "A drive with a foreign file system is refused and untouched until force is written."
check foreign-label "A drive with the pool label of another Target is refused until force is written."
check namespace-too-large "A volume larger than the room says so, as an NVMeNamespace and as a PVC, and fits once there is room."
check shrink "A volume, a claim and a file drive cannot shrink."
check immutable-field "What must not change cannot be changed, and the message says what to do."
check invalid-spec "Specs that mean nothing are refused at admission with a sentence."
check duplicate-pvc "The same claim twice is one volume; the same name in another namespace, or again later, is another one."
check delete-while-attached "Deleting a volume that is in use waits and says who holds it; the pod goes on."
check delete-target-with-volumes "Deleting a Target that holds volumes waits and says so; nothing is lost."
check other-filesystem "A volume that holds ext4 is never formatted because xfs is asked for."
check unknown-parameter "An unknown StorageClass parameter is named, with the known ones."

mounted_drive() {
  local dev
  dev=$(loop_make 1 "$ID" 128M)
  later loop_remove 1 "$ID"
  node 1 sh -ec "mkfs.ext4 -q $dev; mkdir -p /mnt/$ID; mount $dev /mnt/$ID; echo precious >/mnt/$ID/file; sync"
  later node 1 umount "/mnt/$ID"
  device_target "$ID" 1 "$dev"
  later k delete target "$ID" --ignore-not-found --timeout=60s
  wait_drive "$ID" '^Refused (Mounted|InUse): .+'
  wait_condition "target/$ID" Ready '^False'
  device_target "$ID" 1 "$dev" true
  never_within 6 "force takes a mounted drive" drive_like "$ID" '^Online'
  drive_like "$ID" '^Refused'
  # A drive that is no longer mounted may be taken, because force says so: nobody may want it then.
  k delete target "$ID" --timeout=60s
  node 1 umount "/mnt/$ID"
  node 1 e2fsck -fn "$dev" || die "the file system is damaged"
  node 1 mount "$dev" "/mnt/$ID"
  [ "$(node 1 cat "/mnt/$ID/file")" = precious ] || die "the file is gone"
}

foreign_filesystem() {
  local dev sum
  dev=$(loop_make 1 "$ID" 192M)
  later loop_remove 1 "$ID"
  node 1 mkfs.ext4 -q "$dev"
  sum=$(node 1 sha256sum "$DRIVES/$ID.loop")
  device_target "$ID" 1 "$dev"
  later k delete target "$ID" --timeout=60s
  wait_drive "$ID" '^Refused ForeignFilesystem: .*ext4'
  [ "$(node 1 sha256sum "$DRIVES/$ID.loop")" = "$sum" ] || die "something wrote to the drive"
  device_target "$ID" 1 "$dev" true
  wait_drive "$ID" '^Online'
  wait_target "$ID"
}

foreign_label() {
  local dev
  dev=$(loop_make 1 "$ID" 192M)
  later loop_remove 1 "$ID"
  device_target "$ID-old" 1 "$dev"
  later k delete target "$ID-old" --ignore-not-found --timeout=60s
  wait_target "$ID-old"
  k delete target "$ID-old" --timeout=60s
  device_target "$ID" 1 "$dev"
  later k delete target "$ID" --timeout=60s
  wait_drive "$ID" '^Refused ForeignLabel: .+'
  device_target "$ID" 1 "$dev" true
  wait_drive "$ID" '^Online'
}

namespace() { # NAME SIZE [TARGET] [BLOCK SIZE]
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: NVMeNamespace
metadata: {name: $1}
spec: {size: $2, target: ${3:-$ID}, blockSize: ${4:-4096}}
Y
}

namespace_too_large() {
  private_target 512Mi
  namespace "$ID" 2Gi
  later k delete nvmenamespace "$ID" --timeout=60s
  wait_condition "nvmenamespace/$ID" Ready '^False NoRoom: .+'
  pvc large 2Gi "$ID"
  later k delete pvc large --timeout=60s
  toolbox large 2 large
  later k delete pod large --timeout=60s
  wait_event large 'ProvisioningFailed: .*(ResourceExhausted|no room|NoRoom)'
  file_target "$ID" 1 d=3Gi
  wait_condition "nvmenamespace/$ID" Ready '^True' 90
}

shrink() {
  private_target 512Mi
  namespace "$ID" 128Mi
  later k delete nvmenamespace "$ID" --timeout=60s
  wait_condition "nvmenamespace/$ID" Ready '^True'
  refused 'cannot shrink' k patch "nvmenamespace/$ID" --type=merge -p '{"spec":{"size":"64Mi"}}'
  refused '.+' k patch "target/$ID" --type=json -p '[{"op":"replace","path":"/spec/drives/0/file/size","value":"256Mi"}]'
  volume_pod shrink 2 shrink 128Mi
  refused 'can not be less|field can not be|Forbidden|shrink' k patch pvc/shrink -p '{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}'
}

immutable_field() {
  private_target 512Mi
  namespace "$ID" 64Mi
  later k delete nvmenamespace "$ID" --timeout=60s
  wait_condition "nvmenamespace/$ID" Ready '^True'
  refused 'blockSize cannot be changed' k patch "nvmenamespace/$ID" --type=merge -p '{"spec":{"blockSize":512}}'
  refused 'target cannot be changed' k patch "nvmenamespace/$ID" --type=merge -p '{"spec":{"target":"other"}}'
  refused 'a Target stays on its node' k patch "target/$ID" --type=merge -p '{"spec":{"node":"node2"}}'
  refused 'source of a drive cannot be changed' k patch "target/$ID" --type=json \
    -p '[{"op":"replace","path":"/spec/drives/0/file/path","value":"/var/lib/roadstead/drives/other.img"}]'
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: NVMeAttachment
metadata: {name: $ID}
spec: {namespace: $ID, node: node2}
Y
  later k delete nvmeattachment "$ID" --timeout=60s
  refused 'attachment cannot be changed' k patch "nvmeattachment/$ID" --type=merge -p '{"spec":{"node":"node3"}}'
}

invalid_spec() {
  bad() { # REGEX KIND SPEC
    refused "$1" k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: $2
metadata: {name: $ID}
spec: $3
Y
  }
  bad 'exactly one of' Target '{node: node1, drives: [{name: d, path: /dev/sda, serial: x}]}'
  bad 'exactly one of' Target '{node: node1, drives: [{name: d}]}'
  bad 'starts with /dev/' Target '{node: node1, drives: [{name: d, path: sda}]}'
  bad 'lower-case letters' Target '{node: node1, drives: [{name: D_1, path: /dev/sda}]}'
  bad 'at least 64Mi' Target '{node: node1, drives: [{name: d, file: {path: /x, size: 1Mi}}]}'
  bad 'quantity' NVMeNamespace '{size: 10Gx}'
  bad 'quantity' NVMeNamespace '{size: "0"}'
  bad '512|4096' NVMeNamespace '{size: 1Gi, blockSize: 1000}'
}

duplicate_pvc() {
  local first second
  private_target 1Gi
  volume_pod one 2 data
  first=$(volume_of data)
  in_pod one sh -c 'echo first >/data/f; sync'
  pvc data 256Mi "$ID"
  [ "$(volume_of data)" = "$first" ] || die "the same claim, applied again, has another volume"
  k create namespace "$ID-b"
  later k delete namespace "$ID-b" --timeout=90s
  sed "s/namespace: $ID$/namespace: $ID-b/" "$KUBECONFIG" >"$KUBECONFIG.b"
  later rm -f "$KUBECONFIG.b"
  (
    export KUBECONFIG=$KUBECONFIG.b
    pvc data 256Mi "$ID"
    toolbox one 2 data
    wait_pod one
    [ "$(volume_of data)" != "$first" ] || die "two claims share one volume"
    in_pod one sh -c '! test -e /data/f'
    k delete pod one --timeout=60s
    k delete pvc data --timeout=60s
  )
  [ "$(in_pod one cat /data/f)" = first ] || die "the first claim lost its file"
  k delete pod one --timeout=60s
  k delete pvc data --timeout=60s
  wait_gone "nvmenamespace/$first"
  volume_pod one 2 data
  second=$(volume_of data)
  [ "$second" != "$first" ] || die "the new claim has the old volume"
  in_pod one sh -c '! test -e /data/f'
}

delete_while_attached() {
  local v
  private_target 512Mi
  volume_pod user 2 data
  v=$(volume_of data)
  k delete nvmenamespace "$v" --wait=false
  wait_condition "nvmenamespace/$v" Deleting '^True WaitingForAttachments: .*node2'
  in_pod user sh -c 'echo still >/data/f; sync; cat /data/f'
  k delete pod user --timeout=60s
  k delete pvc data --timeout=60s
  wait_gone "nvmenamespace/$v" 90
}

delete_target_with_volumes() {
  private_target 512Mi
  volume_pod user 2 data
  in_pod user sh -c 'echo kept >/data/f; sync'
  k delete target "$ID" --wait=false
  wait_condition "target/$ID" Deleting '^True WaitingForVolumes: .+'
  [ "$(in_pod user cat /data/f)" = kept ] || die "the file is gone"
  k delete pod user --timeout=60s
  toolbox user 3 data
  wait_pod user
  [ "$(in_pod user cat /data/f)" = kept ] || die "the file is gone"
  k delete pod user --timeout=60s
  k delete pvc data --timeout=60s
  wait_gone "target/$ID" 90
}

other_filesystem() {
  local v
  private_target 1Gi
  volume_pod ext4 2 data
  in_pod ext4 sh -c 'echo kept >/data/f; sync'
  v=$(volume_of data)
  k delete pod ext4 --timeout=60s
  until_ok 60 "$v is detached" detached "$v" # else the kubelet would use the old mount
  k apply -f - <<Y
apiVersion: v1
kind: PersistentVolume
metadata: {name: $ID}
spec:
  capacity: {storage: 256Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: $ID, name: other}
  csi: {driver: csi.roadstead.io, volumeHandle: $v, fsType: xfs}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: other}
spec: {storageClassName: "", volumeName: $ID, accessModes: [ReadWriteOnce], resources: {requests: {storage: 256Mi}}}
Y
  later k delete pv "$ID" --ignore-not-found --timeout=60s
  later k delete pvc other --ignore-not-found --timeout=60s
  toolbox xfs 2 other
  later k delete pod xfs --ignore-not-found --timeout=60s
  wait_event xfs 'FailedMount: .*ext4.*xfs|FailedMount: .*xfs.*ext4' 90
  k delete pod xfs --timeout=60s
  toolbox ext4 3 data
  wait_pod ext4
  [ "$(in_pod ext4 cat /data/f)" = kept ] || die "the file is gone"
}

unknown_parameter() {
  k apply -f - <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: $ID}
provisioner: csi.roadstead.io
volumeBindingMode: Immediate
parameters: {flavour: strong}
Y
  later k delete storageclass "$ID"
  pvc data 64Mi "$ID"
  later k delete pvc data --timeout=60s
  wait_event data 'ProvisioningFailed: .*flavour.*blockSize'
}
