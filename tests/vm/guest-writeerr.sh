#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# Media errors on writing and flushing, each on a drive of its own.
. /vm/lib.sh

# 1: block 8 of /data cannot be written. The program gets the error, and the file system goes on.
works "data: mount" serve "$(drive 1)" /mnt
want write:EIO "data: direct overwrite of a bad block" vmio write /mnt/data 32768 4096 4096 2 direct
want write:EIO "data: the same with O_DSYNC" vmio write /mnt/data 32768 4096 4096 2 direct,dsync
want write:EIO "data: a large direct overwrite" vmio write /mnt/data 0 65536 65536 1 direct
want "*:EIO" "data: buffered overwrite and fsync" vmio write /mnt/data 32768 4096 4096 2 fsync
want ok "data: other blocks, directly" vmio write /mnt/data 0 32768 4096 3 direct,fsync
want ok "data: other blocks, buffered" vmio write /mnt/data 36864 28672 4096 3 fsync
want ok "data: what was written is there" vmio read /mnt/data 0 32768 4096 3 direct
want ok "data: a new file" vmio write /mnt/new 0 65536 65536 4 create,fsync
works "data: umount" umount /mnt

# 2: the journal cannot be written. The file system is read-only from then on.
works "journal: mount" serve "$(drive 2)" /mnt
want "fsync:EIO" "journal: fsync of a new file" vmio write /mnt/new 0 4096 4096 4 create,fsync
want "EROFS" "journal: create" vmio create /mnt/new2
want "EROFS" "journal: mkdir" vmio mkdir /mnt/dir
want "*:E*" "journal: overwrite" vmio write /mnt/data 0 4096 4096 4 direct
want ok "journal: direct read" vmio read /mnt/data 0 65536 65536 1 direct
want ok "journal: buffered read" vmio read /mnt/data 0 65536 4096 1 none
want ok "journal: list" vmio list /mnt
sleep 1.5
works "journal: umount" umount /mnt

# 3: the inode table cannot be written in place: the daemon finds out at a checkpoint, at the latest
# by umount.
works "checkpoint: mount" serve "$(drive 3)" /mnt
want ok "checkpoint: a new file, durable by the log" vmio write /mnt/new 0 4096 4096 4 create,fsync
works "checkpoint: umount" umount /mnt

# 4: flushes fail from a moment that the host chooses. QEMU passes on a flush only after a write, so
# flush_fails writes to the last block of the drive, which the file system does not use.
flush_fails() { [ "$(vmio write "$1" 50327552 4096 4096 1 direct,fsync)" != ok ]; }
works "flush: mount" serve "$(drive 4)" /mnt
say "FLUSHES-SHALL-FAIL"
works "flush: the host breaks it" until_true 20 flush_fails "$(drive 4)"
want ok "flush: overwrite without durability" vmio write /mnt/data 0 4096 4096 5 direct
want "fsync:EIO" "flush: fsync of an overwritten file" vmio write /mnt/data 0 4096 4096 5 fsync
want "*:E*" "flush: fsync of a new file" vmio write /mnt/new 0 4096 4096 4 create,fsync
want ok "flush: reads go on" vmio read /mnt/data 4096 61440 61440 1 direct
works "flush: umount" umount /mnt

# 5: as 2, with errors=panic: the daemon ends, and no call hangs.
works "panic: mount" serve "$(drive 5)" /mnt -o errors=panic
want "fsync:E*" "panic: fsync of a new file" vmio write /mnt/new 0 4096 4096 4 create,fsync
want "E*" "panic: create" vmio create /mnt/new2
works "panic: the daemon ends" until_true 10 no_daemon
want "*:E*" "panic: read" vmio read /mnt/data 0 4096 4096 1 direct
works "panic: umount" umount /mnt

# 6: as 2, with errors=continue: without a journal the file system still is read-only.
works "continue: mount" serve "$(drive 6)" /mnt -o errors=continue
want "fsync:EIO" "continue: fsync of a new file" vmio write /mnt/new 0 4096 4096 4 create,fsync
want "EROFS" "continue: create" vmio create /mnt/new2
works "continue: umount" umount /mnt
works "the daemons end" until_true 20 no_daemon
