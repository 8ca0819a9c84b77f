#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh source=/dev/null
#
# The first process of the guest: mounts what a system needs, runs the script named on the kernel's
# command line (script=NAME; arg=WORD becomes $ARG), reports its exit status and switches off. With
# boot=systemd it starts systemd instead, which runs the script as a service (guest-systemd.sh).
# channel=uring has the kernel offer FUSE over io_uring.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin LD_LIBRARY_PATH=/lib HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/mounts /etc/mtab
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
syslogd -O /tmp/syslog
for module in /modules/*.ko; do
	[ ! -e "$module" ] || insmod "$module"
done
stty -F /dev/ttyS1 raw -echo
read -r line </proc/cmdline
for word in $line; do
	case $word in
		script=*) script=${word#script=} ;;
		boot=*) boot=${word#boot=} ;;
		# A module that insmod loads does not see fuse.enable_uring=1.
		channel=uring) echo Y >/sys/module/fuse/parameters/enable_uring ;;
		arg=*) ARG=${word#arg=} && export ARG ;;
	esac
done
echo GUEST-UP >/dev/ttyS1
if [ "${boot:-}" = systemd ]; then
	sh /vm/sd-root.sh
	umount /dev/shm /dev /sys /proc
	exec switch_root /root /lib/systemd/systemd
fi
sh "/vm/$script.sh" </dev/null >/dev/console 2>&1
rc=$?
[ "$script" = cpus ] || sh /vm/channel.sh # root tests name the channel themselves
cat /tmp/syslog
echo "GUEST-RC $rc" >/dev/ttyS1
stty -F /dev/ttyS1 -echo # waits until everything is sent
poweroff -f
