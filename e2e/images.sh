#!/bin/bash
# images.sh [roadstead|postgres|toolbox]... - makes these container images (default: all) without docker; skips what is
# there with the same content. Prints the tar files; beside each is a file .ref with the image's name, whose tag is made of
# the content. The programs of `roadstead` must be built before.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
REPO=${REPO:-roadstead.io}
mkimage() { "$E2E/cluster/mkimage" "$@"; }

# sysroot DIR PACKAGE...: these Debian packages with all that they depend on, unpacked; nothing is installed on the machine.
sysroot() {
  local dir=$1 d
  shift
  rm -rf "$dir"
  mkdir -p "$dir"/usr/{bin,sbin,lib,lib64} "$dir.apt/archives/partial"
  for d in bin sbin lib lib64; do ln -s "usr/$d" "$dir/$d"; done
  : >"$dir.apt/status"
  download() {
    apt-get -qq -y --download-only -o Dir::State::status="$dir.apt/status" -o Dir::Cache::archives="$dir.apt/archives" \
      -o APT::Install-Recommends=0 -o APT::Sandbox::User=root -o Debug::NoLocking=1 install "$@" >/dev/null </dev/null
  }
  download "$@" || { apt-get -qq update >/dev/null && download "$@"; } # the lists may be older than the mirror
  for d in "$dir.apt"/archives/*.deb; do
    dpkg --fsys-tarfile "$d" | tar -C "$dir" -x --keep-directory-symlink --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
  done
  rm -rf "$dir.apt"
}

# pick SYSROOT DEST PATH...: copies files and directories, and the libraries of every program among them.
pick() {
  local sys=$1 dest=$2 p f lib
  shift 2
  for p; do
    mkdir -p "$dest/$(dirname "$p")"
    cp -a "$sys/$p" "$dest/$(dirname "$p")/"
    while IFS= read -r f; do
      if [ ! -f "$f" ] || ! head -c 4 "$f" | grep -q ELF; then continue; fi
      for lib in $(chroot "$sys" /lib64/ld-linux-x86-64.so.2 --list "${f#"$sys"}" 2>/dev/null | grep -oE '/[^ ]+ \(0x' | cut -d' ' -f1); do
        lib=$(readlink -f "$sys/$(dirname "$lib")")/${lib##*/}
        lib=/${lib#"$(readlink -f "$sys")"/}
        mkdir -p "$dest/$(dirname "$lib")"
        cp -nL "$sys/$lib" "$dest/$lib"
      done
    done < <(find "$sys/$p" \( -type f -o -type l \) \( -perm -u+x -o -name '*.so*' \))
  done
  mkdir -p "$dest/usr/lib64"
  cp -nL "$sys/lib64/ld-linux-x86-64.so.2" "$dest/usr/lib64/"
  for p in bin sbin lib lib64; do ln -sfn "usr/$p" "$dest/$p"; mkdir -p "$dest/usr/$p"; done
}

# What programs with RDMA look for at run time: the connection manager, and the drivers of devices with their list. What
# those need comes with them.
RDMA_DEBS="libibverbs1 librdmacm1 ibverbs-providers"
rdma_files() {
  local f
  # shellcheck disable=SC2086 # several packages
  for f in $(dpkg-query -L $RDMA_DEBS | grep -E '^/etc/libibverbs\.d/|/libibverbs/.*\.so$|/librdmacm\.so\.[0-9]+$' | sort); do
    if [ -f "$f" ]; then echo "$f:$f"; fi
  done
}

# The image functions take the tar file and the image's name.
image_roadstead() {
  local b=$TARGET/$PROFILE rdma
  mapfile -t rdma < <(rdma_files)
  [ ${#rdma[@]} -gt 10 ] || die "the RDMA libraries are missing: apt-get install $RDMA_DEBS"
  mkimage -o "$1" -n "$2" "${rdma[@]}" \
    "$b/roadsteadd:/usr/local/bin/roadsteadd" "$b/roadstead-operator:/usr/local/bin/roadstead-operator" \
    "$b/roadstead-csi:/usr/local/bin/roadstead-csi" "$b/roadstead:/usr/local/bin/roadstead" \
    /sbin/mke2fs:/usr/sbin/mkfs.ext4 /sbin/e2fsck:/usr/sbin/e2fsck /sbin/e2fsck:/usr/sbin/fsck.ext4 /sbin/resize2fs:/usr/sbin/resize2fs \
    /etc/mke2fs.conf:/etc/mke2fs.conf /sbin/mkfs.xfs:/usr/sbin/mkfs.xfs /usr/sbin/xfs_growfs:/usr/sbin/xfs_growfs \
    /usr/sbin/xfs_repair:/usr/sbin/xfs_repair /sbin/blkid:/usr/sbin/blkid /sbin/losetup:/usr/sbin/losetup \
    /bin/mount:/usr/bin/mount /bin/umount:/usr/bin/umount
}

image_postgres() {
  local t=$1.d s=$1.sys v
  rm -rf "$t"
  v=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
  [ -n "$v" ] || die "no PostgreSQL in the Debian package lists: run apt-get update"
  sysroot "$s" "postgresql-$v" tzdata bash coreutils findutils grep sed
  rm -rf "$s/usr/lib/postgresql/$v/lib/bitcode" "$s/usr/lib/postgresql/$v/lib/"llvmjit*
  pick "$s" "$t" "/usr/lib/postgresql/$v" "/usr/share/postgresql/$v" /usr/share/zoneinfo /usr/lib/locale/C.utf8 \
    /usr/bin/{bash,cat,chmod,cut,date,df,id,ls,mkdir,grep,sed,sleep,sha256sum,stat,sync,tr}
  ln -sfn bash "$t/usr/bin/sh"
  mkdir -p "$t"/{etc,tmp,var/run/postgresql,var/lib/postgresql}
  chmod 1777 "$t/tmp" "$t/var/run/postgresql"
  ln -sfn "postgresql/$v/bin" "$t/usr/lib/pgbin"
  printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >"$t/etc/passwd"
  printf 'root:x:0:\npostgres:x:999:\n' >"$t/etc/group"
  install -m 755 "$E2E/images/postgres-entry" "$t/usr/bin/postgres-entry"
  mkimage -o "$1" -n "$2" -u 999 -e /usr/bin/postgres-entry -E "PATH=/usr/lib/postgresql/$v/bin:/usr/sbin:/usr/bin" "$t"
  rm -rf "$t" "$s"
}

image_toolbox() {
  local t=$1.d s=$1.sys
  rm -rf "$t"
  sysroot "$s" busybox-static fio bash coreutils util-linux
  pick "$s" "$t" /usr/bin/{fio,bash,dd,sync,sha256sum,truncate,timeout,stat,lsblk,findmnt} /usr/sbin/{blockdev,blkdiscard}
  install -m 755 "$E2E/images/journal" "$t/usr/bin/journal"
  cp "$s/bin/busybox" "$t/usr/bin/busybox"
  for a in $("$s/bin/busybox" --list); do
    [ -e "$t/usr/bin/$a" ] || [ -e "$t/usr/sbin/$a" ] || ln -s busybox "$t/usr/bin/$a"
  done
  mkimage -o "$1" -n "$2" -e /usr/bin/sleep -e 1000000 "$t"
  rm -rf "$t" "$s"
}

key_of() { # what the image's content depends on
  local b=$TARGET/$PROFILE
  case $1 in
    roadstead)
      content_key "$b/roadsteadd" "$b/roadstead-operator" "$b/roadstead-csi" "$b/roadstead" /sbin/mke2fs /sbin/mkfs.xfs /sbin/resize2fs
      # shellcheck disable=SC2086 # several packages
      declare -f rdma_files && dpkg-query -W $RDMA_DEBS
      ;;
    postgres) content_key "$E2E/images/postgres-entry" "$(apt-cache policy postgresql | sed -n 's/.*Candidate: //p')" ;;
    toolbox) content_key "$E2E/images/journal" ;;
  esac
  declare -f "image_$1" sysroot pick mkimage
  content_key "$E2E/cluster/mkimage"
}

mkdir -p "$APP_IMAGES"
apt-cache show postgresql >/dev/null 2>&1 || apt-get -qq update >/dev/null
[ $# -gt 0 ] || set -- roadstead postgres toolbox
for name; do
  declare -F "image_$name" >/dev/null || die "no image $name: roadstead, postgres, toolbox"
  tar=$APP_IMAGES/$name.tar
  ref=$REPO/$name:$(key_of "$name" | sha256sum | cut -c1-12)
  if [ "$(cat "$tar.ref" 2>/dev/null)" != "$ref" ] || [ ! -f "$tar" ]; then
    rm -f "$tar.ref"
    "image_$name" "$tar" "$ref"
    echo "$ref" >"$tar.ref"
  fi
  echo "$tar"
done
