/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's start from files, and its resets: nothing of the files stays in memory, every byte is where it belongs all the same,
 * and files that are replaced, written to, cut short or damaged meanwhile lead to what the manual says, or to one clear line.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include "board/private.h"

#define MIB (1ull << 20)
#ifdef OSPITE_SANITIZED /* what is freed is kept for a while, and there is a shadow */
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define RAM (64 * MIB)
#define ELF_SIZE (20 * MIB + 12345) /* three blocks of LZ4 */
#define CODE (0x1000)
#define CODE_SIZE (9 * MIB + 77)
#define DATA (CODE + CODE_SIZE + 3) /* begins and ends within blocks; what is after it is loaded by nobody */
#define DATA_SIZE (8 * MIB)
#define NOTE (ELF_SIZE - 1000) /* in the last block */

struct fixture {
	char folder[64], kernel[80], initrd[80];
	uint8_t *elf, *packed;
	struct boot_map map;
	struct pc_config config;
	struct boot_image *image;
	struct mem *mem;
	struct x86_state cpu;
	struct err e;
};

static void put_file(const char *path, const void *data, uint64_t size, int flags)
{
	int fd = open(path, O_WRONLY | O_CREAT | flags, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

static void put_segment(uint8_t *ph, uint32_t type, uint64_t at, uint64_t to, uint64_t size, uint64_t memory)
{
	put32(ph, type);
	put64(ph + 8, at);
	put64(ph + 16, to);
	put64(ph + 24, to);
	put64(ph + 32, size);
	put64(ph + 40, memory);
	put64(ph + 48, 4);
}

static void make_elf(struct fixture *f, uint8_t seed)
{
	uint8_t *p = f->elf;

	for (uint64_t i = 0; i < ELF_SIZE; i++)
		p[i] = (uint8_t)((i * 2654435761u >> 27) + seed);
	memset(p, 0, 64);
	memcpy(p, "\177ELF\2\1\1", 7);
	put16(p + 16, 2);
	put16(p + 18, 62);
	put64(p + 24, 0x1000000);
	put64(p + 32, 64);
	put16(p + 54, 56);
	put16(p + 56, 3);
	put_segment(p + 64, 1, CODE, 0x1000000, CODE_SIZE, CODE_SIZE);
	put_segment(p + 120, 1, DATA, 0x2000001, DATA_SIZE, DATA_SIZE + 5000);
	put_segment(p + 176, 4, NOTE, 0, 20, 0);
	put32(p + NOTE, 4);
	put32(p + NOTE + 4, 4);
	put32(p + NOTE + 8, 18);
	memcpy(p + NOTE + 12, "Xen", 4);
	put32(p + NOTE + 16, 0x1000100);
}

static uint64_t pack_lz4(const uint8_t *data, uint8_t *out, uint64_t room)
{
	uint64_t at = 4;

	put32(out, 0x184c2102);
	for (uint64_t from = 0; from < ELF_SIZE; from += 8 * MIB) {
		int n = LZ4_compress_default((const char *)data + from, (char *)out + at + 4, (int)MIN(8 * MIB, ELF_SIZE - from),
					     (int)(room - at - 4));

		assert_true(n > 0);
		put32(out + at, (uint32_t)n);
		at += 4 + (uint64_t)n;
	}
	return at;
}

static uint64_t pack_gzip(const uint8_t *data, uint8_t *out, uint64_t room)
{
	z_stream z = { .next_in = (Bytef *)data, .avail_in = (uInt)ELF_SIZE, .next_out = out, .avail_out = (uInt)room };

	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out - 4; /* its trailer is the size */
}

static uint64_t pack_xz(const uint8_t *data, uint8_t *out, uint64_t room)
{
	size_t n = 0;

	assert_int_equal(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, data, ELF_SIZE, out, &n, room), LZMA_OK);
	return n;
}

static uint64_t pack_zstd(const uint8_t *data, uint8_t *out, uint64_t room)
{
	return ZSTD_compress(out, room, data, ELF_SIZE, 1);
}

typedef uint64_t pack_fn(const uint8_t *data, uint8_t *out, uint64_t room);

/* A bzImage around the ELF file in f->packed; its size. */
static uint64_t make_bzimage(struct fixture *f, pack_fn *pack)
{
	uint8_t *p = f->packed;
	uint64_t n = pack(f->elf, p + 1024, 2 * ELF_SIZE - 1024), size;

	memset(p, 0, 1024);
	put32(p + 1024 + n, ELF_SIZE);
	size = 1024 + n + 4;
	p[0x1f1] = 1;
	put32(p + 0x1f4, (uint32_t)((size - 1024) / 16));
	put16(p + 0x1fe, 0xaa55);
	put16(p + 0x200, 0x6aeb);
	memcpy(p + 0x202, "HdrS", 4);
	put16(p + 0x206, 0x020f);
	p[0x211] = 1;
	put32(p + 0x22c, 0x7fffffff);
	put32(p + 0x230, 0x200000);
	p[0x234] = 1;
	put16(p + 0x236, 3);
	put32(p + 0x238, 2047);
	put32(p + 0x24c, (uint32_t)n + 4);
	put64(p + 0x258, 0x1000000);
	put32(p + 0x260, 0x300000);
	return size;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->elf = malloc(ELF_SIZE);
	f->packed = malloc(2 * ELF_SIZE);
	strcpy(f->folder, "/tmp/ospite-files-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->kernel, sizeof(f->kernel), "%s/kernel", f->folder);
	snprintf(f->initrd, sizeof(f->initrd), "%s/initrd", f->folder);
	f->map = (struct boot_map){ .range = { { 0, 0x9fc00, E820_RAM }, { MIB, RAM - MIB, E820_RAM } }, .count = 2 };
	f->config = (struct pc_config){ .kernel = f->kernel, .initrd = f->initrd };
	f->mem = mem_create(RAM, NULL);
	assert_non_null(f->mem);
	assert_int_equal(mem_map_ram(f->mem, 0, 0, RAM, "ram", NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	boot_image_close(f->image);
	mem_destroy(f->mem);
	unlink(f->kernel);
	unlink(f->initrd);
	rmdir(f->folder);
	free(f->elf);
	free(f->packed);
	free(f);
	return 0;
}

static int load(struct fixture *f)
{
	f->e = (struct err){ 0 };
	return boot_image_load(f->image, f->mem, 0xe0000, &f->cpu, &f->e);
}

/* Memory full of something else, the machine started, and everything where it belongs. */
static void starts(struct fixture *f, uint64_t initrd_size, uint8_t initrd)
{
	uint8_t *ram = mem_ram_base(f->mem);
	uint64_t at;

	memset(ram + MIB, 0xa5, RAM - MIB);
	if (load(f))
		fail_msg("%s", f->e.text);
	assert_int_equal(f->cpu.rip, 0x1000100);
	assert_memory_equal(ram + 0x1000000, f->elf + CODE, CODE_SIZE);
	assert_int_equal(ram[0x1000000 + CODE_SIZE], 0xa5);
	assert_int_equal(ram[0x2000000], 0xa5);
	assert_memory_equal(ram + 0x2000001, f->elf + DATA, DATA_SIZE);
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(ram[0x2000001 + DATA_SIZE + i], 0);
	assert_int_equal(ram[0x2000001 + DATA_SIZE + 5000], 0xa5);
	at = get64(ram + f->cpu.gpr[RBX] + 64);
	assert_int_equal(get64(ram + f->cpu.gpr[RBX] + 72), initrd_size);
	for (uint64_t i = 0; i < initrd_size; i++)
		assert_int_equal(ram[at + i], initrd);
	assert_int_equal(get64(ram + f->cpu.gpr[RBX] + 32), 0xe0000);
}

static void put_initrd(struct fixture *f, uint64_t size, uint8_t value, int flags)
{
	uint8_t *data = malloc(size);

	memset(data, value, size);
	put_file(f->initrd, data, size, flags);
	free(data);
}

/* Pages of ours that are neither code nor guest memory. */
static uint64_t anonymous(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "re");
	char line[256];
	uint64_t kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Anonymous: %lu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib << 10;
}

static void test_kinds(void **state)
{
	static pack_fn *const kinds[] = { pack_lz4, pack_gzip, pack_xz, pack_zstd, NULL };
	struct fixture *f = *state;

	make_elf(f, 1);
	put_initrd(f, 3 * MIB + 5, 0x77, 0);
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		uint64_t size = kinds[i] ? make_bzimage(f, kinds[i]) : ELF_SIZE, before;

		put_file(f->kernel, kinds[i] ? f->packed : f->elf, size, O_TRUNC);
		before = anonymous();
		assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
		starts(f, 3 * MIB + 5, 0x77);
		assert_true(anonymous() < before + (SANITIZED ? 64 : 2) * MIB);
		starts(f, 3 * MIB + 5, 0x77);
		boot_image_close(f->image);
		f->config.restoring = true; /* nothing is read before it is needed */
		assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
		starts(f, 3 * MIB + 5, 0x77);
		boot_image_close(f->image);
		f->config.restoring = false;
		f->image = NULL;
	}
}

/* A package's upgrade puts another file there: the machine stays with its own. Somebody's cp writes into it: he means it. */
static void test_replaced(void **state)
{
	struct fixture *f = *state;
	uint64_t size;

	make_elf(f, 1);
	size = make_bzimage(f, pack_lz4);
	put_file(f->kernel, f->packed, size, O_TRUNC);
	put_initrd(f, MIB, 0x11, 0);
	assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
	starts(f, MIB, 0x11);

	assert_int_equal(unlink(f->kernel), 0);
	assert_int_equal(unlink(f->initrd), 0);
	put_file(f->kernel, "rubbish", 7, O_EXCL);
	starts(f, MIB, 0x11);
	boot_image_close(f->image);

	put_file(f->kernel, f->packed, size, O_TRUNC);
	put_initrd(f, MIB, 0x22, 0);
	assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
	put_initrd(f, 2 * MIB, 0x33, O_TRUNC); /* between the look at it and the start, too */
	starts(f, 2 * MIB, 0x33);
	make_elf(f, 9);
	size = make_bzimage(f, pack_zstd);
	put_file(f->kernel, f->packed, size, O_TRUNC);
	starts(f, 2 * MIB, 0x33);
	put_initrd(f, 62 * MIB, 0x44, O_TRUNC);
	assert_true(load(f) < 0);
	assert_non_null(strstr(f->e.text, "give the machine more --memory"));
	put_initrd(f, 4096, 0x55, O_TRUNC);
	starts(f, 4096, 0x55);
}

/* What is refused says which file and why; the machine can still be started once the file is right again. */
static void test_damaged(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct timespec times[2];
	uint64_t size;
	int fd;

	make_elf(f, 3);
	size = make_bzimage(f, pack_lz4);
	put_file(f->kernel, f->packed, size, O_TRUNC);
	put_initrd(f, MIB, 0x11, 0);
	assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
	starts(f, MIB, 0x11);
	assert_int_equal(truncate(f->kernel, (off_t)size / 2), 0);
	assert_true(load(f) < 0);
	assert_non_null(strstr(f->e.text, f->kernel));
	assert_non_null(strstr(f->e.text, "cut short"));
	assert_int_equal(truncate(f->kernel, 0), 0);
	assert_true(load(f) < 0);
	assert_non_null(strstr(f->e.text, "is empty"));
	put_file(f->kernel, f->packed, size, 0);
	starts(f, MIB, 0x11);

	/* behind our back: same size, same time */
	assert_int_equal(stat(f->kernel, &st), 0);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	fd = open(f->kernel, O_WRONLY);
	assert_int_equal(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 1024 + 8 + 1000), 8);
	memset(f->packed, 0xff, 4096);
	assert_int_equal(pwrite(fd, f->packed, 4096, (off_t)size - 8192), 4096);
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
	assert_true(load(f) < 0);
	assert_non_null(strstr(f->e.text, f->kernel));
	assert_non_null(strstr(f->e.text, "corrupt LZ4 payload"));
}

/* Blocks that claim to be elsewhere, and a pipe in place of a file. */
static void test_hostile(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 9u << 20 };
	struct fixture *f = *state;
	uint64_t size;
	pid_t pid;

	make_elf(f, 5);
	size = make_bzimage(f, pack_lz4);
	put_initrd(f, 4096, 0x11, 0);
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
		uint32_t was = get32(f->packed + 1024 + 4);

		put32(f->packed + 1024 + 4, sizes[i]);
		put_file(f->kernel, f->packed, size, O_TRUNC);
		assert_true(boot_image_open(&f->image, &f->config, &f->map, &f->e) < 0);
		assert_non_null(strstr(f->e.text, "corrupt LZ4 payload"));
		put32(f->packed + 1024 + 4, was);
	}
	unlink(f->kernel);
	assert_int_equal(mkfifo(f->kernel, 0600), 0);
	pid = fork();
	if (!pid) {
		int fd = open(f->kernel, O_WRONLY);

		for (uint64_t at = 0; fd >= 0 && at < size;) {
			ssize_t n = write(fd, f->packed + at, size - at);

			if (n <= 0)
				break;
			at += (uint64_t)n;
		}
		_exit(0);
	}
	assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
	starts(f, 4096, 0x11);
	starts(f, 4096, 0x11); /* a pipe's bytes are kept: nobody says them twice */
}

/* The only file in the folder of unpacked kernels; "": there is none. */
static void cached(struct fixture *f, char path[512])
{
	DIR *d = opendir(f->config.kernel_cache);
	struct dirent *entry;
	unsigned n = 0;

	*path = 0;
	while (d && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && ++n)
			snprintf(path, 512, "%.100s/%s", f->config.kernel_cache, entry->d_name);
	if (d)
		closedir(d);
	assert_true(n <= 1);
}

static void restarts(struct fixture *f)
{
	boot_image_close(f->image);
	f->image = NULL;
	if (boot_image_open(&f->image, &f->config, &f->map, &f->e))
		fail_msg("%s", f->e.text);
	if (load(f))
		fail_msg("%s", f->e.text);
}

static void poke(const char *path, uint64_t at, uint8_t value)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, &value, 1, (off_t)at), 1);
	close(fd);
}

/* Unpacked once, shown to machines from then on; nothing a guest does reaches the file; whatever looks odd is not used. */
static void test_cache(void **state)
{
	static pack_fn *const kinds[] = { pack_lz4, pack_zstd };
	struct fixture *f = *state;
	uint8_t *code = mem_ram_base(f->mem) + 0x1000000;
	char folder[80], path[512], other[80];

	make_elf(f, 6);
	put_initrd(f, MIB, 0x12, 0);
	snprintf(folder, sizeof(folder), "%s/kernels", f->folder);
	snprintf(other, sizeof(other), "%s/other", f->folder);
	f->config.kernel_cache = folder;
	put_file(f->kernel, f->packed, make_bzimage(f, kinds[0]), 0);
	put_file(other, f->packed, make_bzimage(f, kinds[1]), 0);
	assert_int_equal(boot_image_open(&f->image, &f->config, &f->map, &f->e), 0);
	cached(f, path);
	assert_string_equal(path, ""); /* written to a moment ago */
	sleep(4);
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		f->config.kernel = i ? other : f->kernel;
		restarts(f);
		starts(f, MIB, 0x12);
		cached(f, path);
		assert_string_not_equal(path, "");
		poke(path, CODE + 5000, 0xee);
		restarts(f);
		assert_int_equal(code[5000], 0xee);
		memset(code, 0x99, 8192);
		poke(path, CODE + 5000, f->elf[CODE + 5000]);
		starts(f, MIB, 0x12); /* as a reset, all of it written to */
		restarts(f);
		starts(f, MIB, 0x12); /* from the file, where none of that is */
		poke(path, CODE + 5000, 0xee);
		chmod(folder, 0777);
		restarts(f);
		starts(f, MIB, 0x12);
		chmod(folder, 0700);
		chmod(path, 0666);
		restarts(f);
		starts(f, MIB, 0x12);
		cached(f, path);
		poke(path, CODE + 5000, 0xee);
		assert_int_equal(truncate(path, ELF_SIZE - 1), 0);
		restarts(f);
		starts(f, MIB, 0x12);
		cached(f, path);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/another boot's", folder);
	put_file(path, "x", 1, 0);
	restarts(f);
	cached(f, path);
	assert_null(strstr(path, "another"));
	boot_image_close(f->image);
	f->image = NULL;
	unlink(path);
	unlink(other);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cache, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
