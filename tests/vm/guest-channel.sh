#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null disable=SC2154
#
# The last check of every guest: by the daemons' log there was a mount, and all were served to their
# end over the channel that is tested.
. /vm/lib.sh
n=$(over_channel)
works "a mount was served over $channel" [ "$n" -gt 0 ]
want "$n" "no mount was served over another channel" grep -cE "$any_channel" /tmp/syslog
