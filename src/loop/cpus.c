/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPUs as the kernel numbers them: the possible ones, for each of which FUSE keeps a request
 * queue, and those that are online. A virtual machine may have many more possible CPUs than it ever
 * uses. Main thread, no state, no locks. If /sys cannot be read, sysconf gives the number.
 */
#include "loop/loop.h"

#include "base/sysfs.h"

#include <stdlib.h>
#include <unistd.h>

#define SYS_CPU "/sys/devices/system/cpu/"
#define CPUS_MAX 65535u

bool loop_cpu_in_list(const char *list, unsigned cpu, unsigned *ret_last)
{
	bool found = false;
	const char *p = list;

	*ret_last = 0;
	while (*p >= '0' && *p <= '9') {
		char *end;
		unsigned long first = strtoul(p, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (last < first || last > CPUS_MAX)
			return false;
		found = found || (cpu >= first && cpu <= last);
		*ret_last = (unsigned)last;
		p = *end == ',' ? end + 1 : end;
	}
	return found;
}

unsigned loop_possible_cpus(void)
{
	long n = sysconf(_SC_NPROCESSORS_CONF);
	char list[2048];
	unsigned last;

	if (fdio_sysfs_line(list, sizeof(list), SYS_CPU "possible") &&
	    loop_cpu_in_list(list, 0, &last))
		return last + 1;
	return n > 0 ? (unsigned)n : 1;
}

bool loop_cpu_online(unsigned cpu)
{
	char list[2048];
	unsigned last;

	return !fdio_sysfs_line(list, sizeof(list), SYS_CPU "online") ||
	       loop_cpu_in_list(list, cpu, &last);
}
