#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes configure from a git checkout. A release tarball comes with it.
set -eu
cd "$(dirname "$0")"
mkdir -p m4
exec autoreconf -fi
