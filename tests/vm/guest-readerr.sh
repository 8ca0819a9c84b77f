#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# Media errors on reading, which the driver reports as ENODATA: programs must get EIO for the bad
# blocks and for no others. The host chose the bad blocks: block 8 of /data, the inode of
# /inodes/$ARG, the directory /baddir, the attributes of /attr, the extent tree of /tree.
. /vm/lib.sh
works "mount" serve "$(drive 1)" /mnt

want read:EIO "direct read of a bad block" vmio read /mnt/data 32768 4096 4096 1 direct
want read:EIO "direct read of a large range with a bad block" \
	vmio read /mnt/data 0 65536 65536 1 direct
want ok "direct read up to the bad block" vmio read /mnt/data 0 32768 32768 1 direct
want ok "direct read after the bad block" vmio read /mnt/data 36864 28672 28672 1 direct
want read:EIO "buffered read of a bad block" vmio read /mnt/data 32768 4096 4096 1 none
want ok "buffered read up to the bad block" vmio read /mnt/data 0 32768 4096 1 none
want ok "buffered read after the bad block" vmio read /mnt/data 36864 28672 4096 1 none

want EIO "stat of a file whose inode cannot be read" vmio stat "/mnt/inodes/$ARG"
want ok "stat of another file" vmio stat /mnt/inodes/other
want EIO "list of a directory that cannot be read" vmio list /mnt/baddir
want EIO "lookup in it" vmio stat /mnt/baddir/file
want ok "list of another directory" vmio list /mnt/inodes
want EIO "getxattr where the attributes cannot be read" vmio getxattr /mnt/attr user.large
want read:EIO "read through an extent tree that cannot be read" \
	vmio read /mnt/tree 0 4096 4096 1 direct

want ok "the daemon goes on: a file is written" \
	vmio write /mnt/new 0 65536 65536 7 create,direct,fsync
want ok "and read" vmio read /mnt/new 0 65536 65536 7 direct
works "umount" umount /mnt
works "the daemon ends" until_true 20 no_daemon
