#!/bin/bash
# NVMe SSDs (emulated, with the kernel's own driver): found by serial number, kept off when in use, unplugged and plugged in.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check unplugged "The drive is unplugged during use: errors and a report, no hang; plugged in again, all data are there." 240

unplugged() {
  local d
  mkdir -p "$SA"
  for d in pool used; do
    rm -f "$SA/$d.img"
    truncate -s 512M "$SA/$d.img"
  done
  guest real-drive.sh -a "$TARGET/$PROFILE/roadsteadd" -a "$TARGET/$PROFILE/roadstead" \
    -q "-drive file=$SA/pool.img,if=none,id=pool,format=raw -device nvme,drive=pool,serial=POOL" \
    -q "-drive file=$SA/used.img,if=none,id=used,format=raw -device nvme,drive=used,serial=USED"
}
