/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shell cannot ask of a file system; static. usage: files FOLDER
 * Every line that begins with BAD is a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHECK(x) ((x) ? 0 : printf("BAD line %d: %s: %s\n", __LINE__, #x, strerror(errno)))
#define PAGES 64
#define PAGE 4096

static void mapped(void)
{
	int fd = open("mapped", O_RDWR | O_CREAT | O_EXCL, 0640);
	uint8_t *m, *again;

	CHECK(fd >= 0);
	CHECK(!ftruncate(fd, PAGES * PAGE));
	m = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	for (unsigned i = 0; i < PAGES * PAGE; i++)
		m[i] = (uint8_t)(i * 7 + (i >> 12));
	CHECK(!msync(m, PAGES * PAGE, MS_SYNC));
	munmap(m, PAGES * PAGE);
	close(fd);
	fd = open("mapped", O_RDONLY);
	again = mmap(NULL, PAGES * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	for (unsigned i = 0; i < PAGES * PAGE; i++)
		if (again[i] != (uint8_t)(i * 7 + (i >> 12))) {
			printf("BAD byte %u of a mapped file\n", i);
			break;
		}
	munmap(again, PAGES * PAGE);
	close(fd);
}

static void names(void)
{
	struct stat a, b;
	char target[100] = "";
	int fd;

	CHECK(open("new", O_RDWR | O_CREAT | O_EXCL, 0600) >= 0);
	CHECK(open("new", O_RDWR | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	CHECK(!link("new", "new2") && !stat("new", &a) && !stat("new2", &b) && a.st_ino == b.st_ino && b.st_nlink == 2);
	CHECK(!symlink("/etc/passwd", "out") && readlink("out", target, sizeof(target)) == 11 && !strcmp(target, "/etc/passwd"));
	CHECK(open("out", O_RDONLY) < 0 && errno == ENOENT); /* the guest's own, which is not there */
	CHECK(!mkdir("d", 0750) && !mkdir("d/e", 0777) && !rename("new2", "d/e/moved") && !stat("d/e/moved", &b));
	CHECK(rmdir("d") && errno == ENOTEMPTY);
	CHECK(!syscall(SYS_renameat2, AT_FDCWD, "new", AT_FDCWD, "d/e", 2 /* exchange */));
	CHECK(!stat("d/e", &a) && S_ISREG(a.st_mode) && !stat("new/moved", &b) && a.st_ino == b.st_ino);
	CHECK(syscall(SYS_renameat2, AT_FDCWD, "d/e", AT_FDCWD, "new", 1 /* no replacing */) && errno == EEXIST);
	/* gone and still in use */
	fd = open("gone", O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && !unlink("gone") && write(fd, "abc", 3) == 3 && pread(fd, target, 3, 0) == 3 && !fstat(fd, &a) &&
	      a.st_size == 3 && !a.st_nlink);
	close(fd);
	CHECK(!mkfifo("fifo", 0600) && !stat("fifo", &a) && S_ISFIFO(a.st_mode));
	CHECK(mknod("device", S_IFCHR | 0600, 0x105) && errno == EPERM);
}

static void attributes(void)
{
	struct timespec t[2] = { { 1000000000, 5 }, { 1100000000, 7 } };
	char value[100], list[100];
	struct statvfs s;
	struct stat st;
	int fd = open("attributes", O_RDWR | O_CREAT, 0600);

	CHECK(!chmod("attributes", 0751) && !stat("attributes", &st) && (st.st_mode & 07777) == 0751);
	CHECK(!chown("attributes", 1234, 4321) && !stat("attributes", &st) && st.st_uid == 1234 && st.st_gid == 4321);
	CHECK(!utimensat(AT_FDCWD, "attributes", t, 0) && !stat("attributes", &st) && st.st_atim.tv_sec == 1000000000 &&
	      st.st_mtim.tv_sec == 1100000000 && st.st_mtim.tv_nsec == 7);
	CHECK(!statvfs(".", &s) && s.f_blocks && s.f_namemax == 255);
	if (setxattr("attributes", "user.some", "thing", 5, 0)) { /* not every file system of a host has them */
		CHECK(errno == EOPNOTSUPP);
	} else {
		CHECK(getxattr("attributes", "user.some", value, sizeof(value)) == 5 && !memcmp(value, "thing", 5));
		CHECK(listxattr("attributes", list, sizeof(list)) == 10 && !strcmp(list, "user.some"));
		CHECK(!removexattr("attributes", "user.some") && listxattr("attributes", list, sizeof(list)) == 0);
	}
	CHECK(setxattr("attributes", "security.capability", "x", 1, 0) && errno != 0);
	CHECK(!ftruncate(fd, 1 << 20) && pwrite(fd, "x", 1, 100000) == 1 && lseek(fd, 0, SEEK_DATA) <= 100000);
	CHECK(!fallocate(fd, 0, 1 << 20, 4096) && !fstat(fd, &st) && st.st_size == (1 << 20) + 4096);
	CHECK(!flock(fd, LOCK_EX | LOCK_NB) && !fsync(fd));
	close(fd);
	fd = open("attributes", O_WRONLY | O_APPEND);
	CHECK(write(fd, "end", 3) == 3 && !fstat(fd, &st) && st.st_size == (1 << 20) + 4099);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]))
		return 2;
	umask(022);
	mapped();
	names();
	attributes();
	printf("files done\n");
	return 0;
}
