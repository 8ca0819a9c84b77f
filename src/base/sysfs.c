/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads files of one line, see sysfs.h. Any thread that may wait; no state, no locks. */
#include "base/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_CAP 256

static size_t read_some(const char *path, char *buf, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 1;

	while (fd >= 0 && len < cap && n > 0) {
		n = read(fd, buf + len, cap - len);
		if (n > 0)
			len += (size_t)n;
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	if (fd >= 0)
		close(fd);
	return len;
}

bool fdio_sysfs_line(char *line, size_t cap, const char *path_fmt, ...)
{
	char path[PATH_CAP];
	va_list ap;
	int len;

	va_start(ap, path_fmt);
	len = vsnprintf(path, sizeof(path), path_fmt, ap);
	va_end(ap);
	line[0] = '\0';
	if (len < 0 || (size_t)len >= sizeof(path))
		return false;
	line[read_some(path, line, cap - 1)] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return line[0];
}
