/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images: random requests on images of every kind against a model, closed and opened again, checked after each; backing
 * chains, snapshots, resizing, compression. Where qemu-img is installed it must agree. A file that ends at any write between two
 * flushes is in test-powercut.
 */
#include "exercise.h"
#include "backend/image.h"

static bool have_qemu;

static void make(const struct dir *d, struct image_create c)
{
	struct err e = { 0 };

	c.path = c.path ? c.path : d->path;
	c.format = "qcow2";
	c.replace = true;
	if (image_create(&c, &e))
		fail_msg("%s", e.text);
}

/* Ours, and QEMU's: nothing leaked, nothing wrong. */
static void check_clean(const char *path)
{
	struct block *b = open_spec("format=qcow2,backing=header,readonly,file=%s", path);
	struct image_check found;
	struct err e = { 0 };
	char command[300];

	if (image_check(b, false, &found, &e))
		fail_msg("%s", e.text);
	if (found.leaks || found.corruptions || found.errors)
		fail_msg("%s: %lu leaks, %lu corruptions, %lu errors", path, found.leaks, found.corruptions, found.errors);
	block_close(b);
	snprintf(command, sizeof(command), "qemu-img check -q -f qcow2 %s >&2", path);
	if (have_qemu && system(command))
		fail_msg("%s failed", command);
}

static void check_content(const char *path, const uint8_t *model, uint64_t size)
{
	struct block *b = open_spec("format=qcow2,backing=header,readonly,file=%s", path);
	uint8_t *back = malloc(size);
	struct block_info info;

	block_get_info(b, &info);
	assert_int_equal(info.size, size);
	memset(back, 0x55, size);
	assert_int_equal(block_sync(b, BLOCK_READ, 0, back, size), 0);
	assert_memory_equal(back, model, size);
	block_close(b);
	free(back);
}

/* QEMU reads what the model says: through a raw copy it makes. */
static void check_qemu_reads(const struct dir *d, const char *path, const uint8_t *model, uint64_t size)
{
	char command[400], raw[128];
	uint8_t *back = malloc(size);
	int fd;

	snprintf(raw, sizeof(raw), "%s/raw", d->dir);
	snprintf(command, sizeof(command), "qemu-img convert -f qcow2 -O raw %s %s", path, raw);
	if (have_qemu) {
		assert_int_equal(system(command), 0);
		fd = open(raw, O_RDONLY);
		assert_int_equal(pread(fd, back, size, 0), (ssize_t)size);
		assert_memory_equal(back, model, size);
		close(fd);
		unlink(raw);
	}
	free(back);
}

static void test_kinds(void **state)
{
	static const struct {
		struct image_create c;
		const char *spec;
		unsigned rounds;
	} kinds[] = {
		{ { .size = SIZE }, "format=qcow2,file=%s", 800 },
		{ { .size = SIZE, .cluster_size = 512 }, "format=qcow2,file=%s,table-cache=4k", 300 },
		{ { .size = SIZE, .cluster_size = 4096 }, "format=qcow2,file=%s,aio=threads,table-cache=16k", 500 },
		{ { .size = SIZE, .cluster_size = 2u << 20 }, "format=qcow2,file=%s,cache=unsafe", 200 },
		{ { .size = SIZE, .lazy_refcounts = true }, "format=qcow2,file=%s", 500 },
		{ { .size = SIZE, .preallocation = IMAGE_METADATA }, "format=qcow2,file=%s", 500 },
		{ { .size = SIZE, .preallocation = IMAGE_FULL }, "format=qcow2,file=%s", 200 },
		{ { .size = SIZE }, "format=qcow2,file=%s,cache=writethrough", 100 },
		{ { .size = SIZE }, "format=qcow2,file=%s,cache=none", 300 },
		{ { .size = SIZE }, "format=qcow2,file=%s,discard=off", 300 },
	};
	struct dir d;

	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		uint8_t *model = calloc(1, SIZE);
		uint64_t grain = strstr(kinds[i].spec, "discard=off") ? 0 : MAX(kinds[i].c.cluster_size, 512u);

		if (grain == 512 && !kinds[i].c.cluster_size)
			grain = 65536;

		dir_make_in(&d, !strstr(kinds[i].spec, "cache=none"));
		make(&d, kinds[i].c);
		check_clean(d.path);
		for (unsigned round = 0; round < 2; round++) {
			struct block *b = open_spec(kinds[i].spec, d.path);

			exercise_model(b, kinds[i].rounds, i * 2 + round, model, grain);
			block_close(b);
			check_clean(d.path);
			check_content(d.path, model, SIZE);
		}
		if (i < 5)
			check_qemu_reads(&d, d.path, model, SIZE);
		free(model);
		dir_remove(&d);
	}
}

static void test_backing(void **state)
{
	uint8_t *base = calloc(1, SIZE), *middle = malloc(SIZE), *top = malloc(SIZE);
	char middle_path[128], top_path[128], spec[512];
	struct err e = { 0 };
	struct block *b;
	struct dir d;

	dir_make_in(&d, true);
	snprintf(middle_path, sizeof(middle_path), "%s/middle", d.dir);
	snprintf(top_path, sizeof(top_path), "%s/top", d.dir);
	make(&d, (struct image_create){ .size = SIZE });
	b = open_spec("format=qcow2,file=%s", d.path);
	exercise_model(b, 300, 1, base, 65536);
	block_close(b);
	make(&d, (struct image_create){ .path = middle_path, .backing = "disk", .backing_format = "qcow2", .cluster_size = 4096 });
	make(&d, (struct image_create){ .path = top_path, .backing = "middle", .backing_format = "qcow2" });
	/* never without being told to */
	snprintf(spec, sizeof(spec), "format=qcow2,file=%s", top_path);
	assert_int_equal(block_open(&b, &(struct block_config){ .spec = spec }, &e), -EPERM);
	assert_non_null(strstr(e.text, "backing=header"));
	memcpy(middle, base, SIZE);
	b = open_spec("format=qcow2,backing=header,file=%s", middle_path);
	exercise_model(b, 200, 2, middle, 65536);
	block_close(b);
	memcpy(top, middle, SIZE);
	snprintf(spec, sizeof(spec), "format=qcow2,file=%s,backing=%s,backing-format=qcow2,backing=%s", top_path, middle_path, d.path);
	b = open_spec("%s", spec);
	exercise_model(b, 300, 3, top, 65536);
	block_close(b);
	check_content(d.path, base, SIZE);
	check_content(middle_path, middle, SIZE);
	check_content(top_path, top, SIZE);
	check_clean(middle_path);
	check_clean(top_path);
	check_qemu_reads(&d, top_path, top, SIZE);
	unlink(middle_path);
	assert_true(block_open(&b, &(struct block_config){ .spec = spec }, &e) < 0);
	assert_non_null(strstr(e.text, "backing file of"));
	unlink(top_path);
	dir_remove(&d);
	free(base);
	free(middle);
	free(top);
}

/* Without format=: the name's ending; an image that nobody called one is not shown to a guest as raw bytes. A loop is one line. */
static void test_unsaid(void **state)
{
	struct block_config c = { .spec = NULL };
	struct block_info info;
	struct err e = { 0 };
	struct block *b;
	char named[128], other[300];
	struct dir d;

	dir_make_in(&d, true);
	snprintf(named, sizeof(named), "%s/disk.QCow2", d.dir);
	snprintf(other, sizeof(other), "%s/other", d.dir);
	make(&d, (struct image_create){ .size = SIZE });
	c.spec = d.path;
	assert_int_equal(block_open(&b, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "holds a qcow2 image"));
	b = open_spec("format=raw,file=%s", d.path);
	block_close(b);
	assert_int_equal(rename(d.path, named), 0);
	b = open_spec("%s", named);
	block_get_info(b, &info);
	assert_int_equal(info.size, SIZE);
	block_close(b);
	/* each the other's backing file */
	make(&d, (struct image_create){ .backing = "disk.QCow2", .backing_format = "qcow2" });
	make(&d, (struct image_create){ .path = other, .backing = "disk", .backing_format = "qcow2" });
	assert_int_equal(rename(other, named), 0);
	snprintf(other, sizeof(other), "readonly,backing=header,file=%s", named);
	c.spec = other;
	assert_int_equal(block_open(&b, &c, &e), -ELOOP);
	assert_non_null(strstr(e.text, "is longer than"));
	unlink(named);
	dir_remove(&d);
}

static void test_snapshots(void **state)
{
	uint8_t *model = calloc(1, SIZE), *kept[4];
	static const char *const names[] = { "a", "b", "c", "d" };
	struct image_snapshot s;
	struct err e = { 0 };
	struct block *b;
	struct dir d;

	dir_make_in(&d, true);
	make(&d, (struct image_create){ .size = SIZE, .cluster_size = 4096 });
	b = open_spec("format=qcow2,file=%s", d.path);
	for (unsigned i = 0; i < 4; i++) {
		exercise_model(b, 200, 10 + i, model, 65536);
		if (image_snapshot_create(b, names[i], &e))
			fail_msg("%s", e.text);
		kept[i] = malloc(SIZE);
		memcpy(kept[i], model, SIZE);
	}
	assert_int_equal(image_snapshot_create(b, "a", &e), -EEXIST);
	exercise_model(b, 200, 20, model, 65536);
	block_close(b);
	check_clean(d.path);
	b = open_spec("format=qcow2,file=%s", d.path);
	assert_true(image_snapshot_get(b, 3, &s));
	assert_string_equal(s.name, "d");
	assert_string_equal(s.id, "4");
	assert_false(image_snapshot_get(b, 4, &s));
	for (unsigned i = 4; i--;) {
		if (image_snapshot_apply(b, names[i], &e))
			fail_msg("%s", e.text);
		exercise_model(b, 0, 0, kept[i], 65536);
		memcpy(model, kept[i], SIZE);
		exercise_model(b, 100, 30 + i, model, 65536);
	}
	block_close(b);
	check_clean(d.path);
	check_content(d.path, model, SIZE);
	b = open_spec("format=qcow2,file=%s", d.path);
	for (unsigned i = 0; i < 4; i++) {
		if (image_snapshot_delete(b, names[(i + 2) % 4], &e))
			fail_msg("%s", e.text);
		exercise_model(b, 50, 40 + i, model, 65536);
	}
	assert_int_equal(image_snapshot_delete(b, "a", &e), -ENOENT);
	block_close(b);
	check_clean(d.path);
	check_content(d.path, model, SIZE);
	for (unsigned i = 0; i < 4; i++)
		free(kept[i]);
	free(model);
	dir_remove(&d);
}

static void test_resize(void **state)
{
	static const uint64_t sizes[] = { 1 << 20, 40u << 20, 3 << 20, 3584, 66048, 8u << 20, 4u << 20 };
	uint8_t *model = calloc(1, 64u << 20);
	struct dir d;

	dir_make_in(&d, true);
	for (unsigned kind = 0; kind < 2; kind++) {
		uint64_t size = SIZE;
		struct err e = { 0 };
		struct block *b;

		memset(model, 0, 64u << 20);
		make(&d, (struct image_create){ .size = SIZE, .cluster_size = kind ? 512 : 0 });
		b = open_spec("format=qcow2,file=%s", d.path);
		exercise_model(b, 200, kind, model, 65536);
		for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
			uint8_t mark[1024];

			if (block_resize(b, sizes[i], &e))
				fail_msg("%s", e.text);
			if (sizes[i] < size)
				memset(model + sizes[i], 0, (64u << 20) - sizes[i]);
			size = sizes[i];
			memset(mark, (int)i + 1, sizeof(mark));
			memcpy(model + size - 1024, mark, 1024);
			assert_int_equal(block_sync(b, BLOCK_WRITE, size - 1024, mark, 1024), 0);
		}
		block_close(b);
		check_clean(d.path);
		check_content(d.path, model, size);
		check_qemu_reads(&d, d.path, model, size);
	}
	free(model);
	dir_remove(&d);
}

static void test_compressed(void **state)
{
	uint8_t *model = calloc(1, SIZE);
	struct dir d;

	dir_make_in(&d, true);
	for (unsigned zstd = 0; zstd < 2; zstd++) {
		unsigned seed = 5;
		struct block *b;

		make(&d, (struct image_create){ .size = SIZE, .zstd = zstd });
		b = open_spec("format=qcow2,file=%s", d.path);
		for (uint64_t at = 0; at < SIZE; at += 65536) {
			/* text, noise, and both */
			for (unsigned i = 0; i < 65536; i++)
				model[at + i] = (uint8_t)(i < (at >> 4) % 65536 ? rand_r(&seed) : i >> 7);
			assert_int_equal(image_write_compressed(b, at, model + at, 65536), 0);
		}
		block_close(b);
		check_clean(d.path);
		check_content(d.path, model, SIZE);
		check_qemu_reads(&d, d.path, model, SIZE);
		b = open_spec("format=qcow2,file=%s", d.path);
		exercise_model(b, 300, 7 + zstd, model, 65536);
		block_close(b);
		check_clean(d.path);
		check_content(d.path, model, SIZE);
	}
	free(model);
	dir_remove(&d);
}

/* Refcounts that are wrong are found, and put right; what the guest sees stays. */
static void test_repair(void **state)
{
	uint8_t *model = calloc(1, SIZE), block[65536];
	struct image_check found;
	struct err e = { 0 };
	struct block *b;
	struct dir d;
	int fd;

	dir_make_in(&d, true);
	make(&d, (struct image_create){ .size = SIZE });
	b = open_spec("format=qcow2,file=%s", d.path);
	exercise_model(b, 300, 3, model, 65536);
	block_close(b);
	fd = open(d.path, O_RDWR);
	assert_int_equal(pread(fd, block, sizeof(block), 131072), sizeof(block));
	block[9] = 0;   /* in use, said to be free */
	block[11] = 7;  /* in use more often than there are users */
	block[401] = 1; /* in use by nobody */
	assert_int_equal(pwrite(fd, block, sizeof(block), 131072), sizeof(block));
	close(fd);
	b = open_spec("format=qcow2,file=%s", d.path);
	assert_int_equal(image_check(b, false, &found, &e), 0);
	assert_int_equal(found.corruptions, 1);
	assert_int_equal(found.leaks, 2);
	assert_int_equal(image_check(b, true, &found, &e), 0);
	assert_int_equal(found.corruptions_fixed, 1);
	exercise_model(b, 100, 4, model, 65536);
	block_close(b);
	check_clean(d.path);
	check_content(d.path, model, SIZE);
	free(model);
	dir_remove(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),  cmocka_unit_test(test_backing),	  cmocka_unit_test(test_unsaid),
		cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_resize), cmocka_unit_test(test_compressed), cmocka_unit_test(test_repair),
	};

	have_qemu = !system("command -v qemu-img >/dev/null");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
