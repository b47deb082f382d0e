/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills a file system with files whose contents follow from their numbers, and looks whether they are all there; static.
 *
 *	fsload fill FOLDER FIRST LAST BYTES	says "durable N" when file N and all before it are on the disk
 *	fsload verify FOLDER LAST BYTES		files 0 to LAST were durable; what came later may be there or not
 *
 * Sizes vary up to BYTES. Of every seven files the first is removed again when the fourth is written, the third is written in
 * place twice. Every line that begins with BAD is a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define GROUP 7
#define REMOVED 0
#define TWICE 2
#define REMOVER 3

static uint64_t chunk[CHUNK / 8], seen[CHUNK / 8];

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static uint64_t seed_of(unsigned n)
{
	return (n + 1) * 0x9e3779b97f4a7c15ull;
}

static uint64_t size_of(unsigned n, uint64_t bytes)
{
	return 1 + bytes / 4 + n * 2654435761u % (bytes * 3 / 4 + 1);
}

static void fill_chunk(uint64_t *x)
{
	for (unsigned i = 0; i < CHUNK / 8; i++)
		chunk[i] = next(x);
}

static void bad(const char *what, unsigned n)
{
	printf("BAD %s of file %u: %s\n", what, n, strerror(errno));
	exit(1);
}

static void sync_folder(void)
{
	int fd = open(".", O_RDONLY);

	if (fd < 0 || fsync(fd))
		bad("fsync of the folder", 0);
	close(fd);
}

static void write_once(unsigned n, uint64_t size, uint64_t x)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%u", n);
	fd = open(name, O_WRONLY | O_CREAT, 0644);
	if (fd < 0)
		bad("open", n);
	while (size) {
		size_t part = size < CHUNK ? size : CHUNK;

		fill_chunk(&x);
		if (write(fd, chunk, part) != (ssize_t)part)
			bad("write", n);
		size -= part;
	}
	if (fsync(fd))
		bad("fsync", n);
	close(fd);
}

static void fill(unsigned first, unsigned last, uint64_t bytes)
{
	char name[16];

	for (unsigned n = first; n <= last; n++) {
		if (n % GROUP == TWICE)
			write_once(n, size_of(n, bytes), ~seed_of(n));
		write_once(n, size_of(n, bytes), seed_of(n));
		if (n % GROUP == REMOVER) {
			snprintf(name, sizeof(name), "%u", n - REMOVER + REMOVED);
			if (unlink(name))
				bad("unlink", n);
		}
		sync_folder();
		printf("durable %u\n", n);
		fflush(stdout);
	}
}

/* Is it what it has to be? False: it is not there. */
static int intact(unsigned n, uint64_t bytes, uint64_t *total)
{
	uint64_t size = size_of(n, bytes), x = seed_of(n);
	struct stat st;
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%u", n);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return 0;
	if (fstat(fd, &st) || (uint64_t)st.st_size != size)
		bad("size", n);
	*total += size;
	for (uint64_t at = 0; at < size; at += CHUNK) {
		size_t part = size - at < CHUNK ? size - at : CHUNK;

		fill_chunk(&x);
		if (read(fd, seen, part) != (ssize_t)part)
			bad("read", n);
		if (memcmp(seen, chunk, part))
			bad("contents", n);
	}
	close(fd);
	return 1;
}

static void verify(unsigned last, uint64_t bytes)
{
	uint64_t total = 0;
	unsigned files = 0;

	for (unsigned n = 0; n <= last; n++) {
		unsigned remover = n - REMOVED + REMOVER;
		int there;

		errno = 0;
		there = intact(n, bytes, &total);
		files += there;
		if (n % GROUP != REMOVED && !there)
			bad("loss", n);
		if (n % GROUP == REMOVED && (remover <= last ? there : 0))
			bad("return", n);
	}
	printf("intact %u files %llu bytes\n", files, (unsigned long long)total);
}

int main(int argc, char **argv)
{
	if (argc >= 5 && chdir(argv[2]))
		bad("folder", 0);
	if (argc == 6 && !strcmp(argv[1], "fill"))
		fill((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), strtoull(argv[5], NULL, 0));
	else if (argc == 5 && !strcmp(argv[1], "verify"))
		verify((unsigned)atoi(argv[3]), strtoull(argv[4], NULL, 0));
	else
		return 2;
	return 0;
}
