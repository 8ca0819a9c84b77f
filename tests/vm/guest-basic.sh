#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# Serves two namespaces at once: verified direct, buffered and mapped I/O, unmount, e2fsck. Drive 1
# comes with a file system, drive 2 gets one here.
. /vm/lib.sh
a=$(drive 1) b=$(drive 2)
lbs=$(cat "/sys/block/${a##*/}/queue/logical_block_size")

works "mount" serve "$a" /mnt
# With its path, because busybox has a mke2fs of its own.
works "mke2fs in the guest" /bin/mke2fs -q -F -t ext4 "$b"
works "mount of the second namespace" serve "$b" /mnt2
fails "a second daemon on a drive that is served" fusedio "$a" /mnt2

run_fio() {
	(cd /mnt && fio --output=/tmp/fio.out --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --end_fsync=1 "$@")
}
works "fio, direct, small and large, many in flight, verified" run_fio --direct=1 \
	--name=a --filename=a --size=2m --rw=randwrite --bs=4k --ioengine=io_uring --iodepth=16 \
	--name=b --filename=b --size=4m --rw=write --bs=512k --ioengine=libaio --iodepth=4
works "fio, buffered and mapped, verified" run_fio --size=1m --bs=4k --rw=randwrite \
	--name=c --filename=c --ioengine=psync \
	--name=m --filename=m --ioengine=mmap

want ok "direct writes with O_DSYNC" vmio write /mnt/s 0 65536 "$lbs" 1 create,direct,dsync
want ok "reading them back directly" vmio read /mnt/s 0 65536 4096 1 direct
want "write:EINVAL" "a direct write of half a sector" \
	vmio write /mnt/s 0 $((lbs / 2)) $((lbs / 2)) 1 direct
works "dd to the second namespace" dd if=/dev/urandom of=/tmp/data bs=64k count=64
works "dd, direct" dd if=/tmp/data of=/mnt2/data bs=256k oflag=direct
works "what was written is what is read" cmp /tmp/data /mnt2/data
works "dd, back and direct" dd if=/mnt2/data of=/tmp/back bs=128k iflag=direct
works "what was written is what is read directly" cmp /tmp/data /tmp/back
for how in write truncate fallocate; do
	want ok "stores through a mapping behind the end, then $how" \
		vmio mapped "/mnt2/mapped-$how" "$how"
done
mkdir /mnt2/dir
works "copying a tree" cp -a /vm /mnt2/dir/
works "umount" umount /mnt
works "umount of the second namespace" umount /mnt2
works "the daemons end" until_true 20 no_daemon
works "e2fsck in the guest" e2fsck -fn "$a"
works "e2fsck of the second namespace" e2fsck -fn "$b"
works "mount again" serve "$b" /mnt2
works "what was written is still there" cmp /tmp/data /mnt2/data
for how in write truncate fallocate; do
	want ok "these stores are not on the disk: $how" vmio zeroes "/mnt2/mapped-$how"
done
works "the tree is still there" diff -r /vm /mnt2/dir/vm
works "umount again" umount /mnt2
