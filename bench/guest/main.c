/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's program: the same static binary runs on the host and inside each machine, there as /init too.
 * Prints "part GROUP NAME SECONDS CHECKSUM" lines. Arguments: names of parts to run, none
 * means all; "times:5" has each run five times.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "parts.h"

static const struct part *const all[] = { parts_compute, parts_vector, parts_memory, parts_kernel, parts_job, parts_large };

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int wanted(const struct part *p, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], p->name))
			return 1;
	return argc <= 1 && strcmp(p->group, "large") != 0;
}

/* "times:N": each part N times */
static int repeats(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], "times:", 6) && atoi(argv[i] + 6) > 0)
			return atoi(argv[i] + 6);
	return 1;
}

static void run_part(const struct part *p)
{
	double start = seconds();
	uint64_t sum = p->run();

	printf("part %s %s %.4f %016llx\n", p->group, p->name, seconds() - start, (unsigned long long)sum);
	fflush(stdout);
}

static void run_parts(int argc, char **argv)
{
	int times = repeats(argc, argv);

	for (unsigned g = 0; g < sizeof(all) / sizeof(all[0]); g++) {
		for (const struct part *p = all[g]; p->name; p++) {
			if (!wanted(p, argc, argv) || (p->usable && !p->usable()))
				continue;
			for (int n = 0; n < times; n++)
				run_part(p);
		}
	}
}

static void set_up_system(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 0777);
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("tmpfs", "/tmp", "tmpfs", 0, "");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--exit"))
		return 3;
	if (getpid() != 1) {
		run_parts(argc, argv);
		return 0;
	}
	/* As /init: the kernel hands over words of its command line it does not know; "--" keeps them ours. */
	printf("\nbench: first user program\n");
	fflush(stdout);
	set_up_system();
	if (argc < 2 || strcmp(argv[1], "boot-only"))
		run_parts(argc, argv);
	printf("bench: done\n");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
