/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls: src/vm/syscalls.def lists what is allowed; of the rest those that only somebody who has taken over the process
 * would use end it, the others fail with EPERM, as a library may try them and do without.
 *
 * - SECCOMP_FILTER_FLAG_SPEC_ALLOW (SSB): kernels before 5.16 switch store bypass off for filtered processes otherwise, which
 *   costs translated code up to a third; the guest's own code is no secret to the process that runs it.
 * - Memory that is writable and executable at once is refused; the translator maps its cache twice.
 * - clone3 gives ENOSYS: its flags are in memory, where no filter sees them; libraries then use clone.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/confine.h"

int confine_user(struct confine *c, const char *name, bool elsewhere, struct err *e)
{
	FILE *f = fopen("/etc/passwd", "re");
	const struct passwd *pw;

	/* usually there: libraries for other places cost 2 ms, of a start of 20 */
	while (f && (pw = fgetpwent(f)) && strcmp(pw->pw_name, name))
		;
	if (!f || !pw)
		pw = elsewhere ? getpwnam(name) : NULL;
	if (f)
		fclose(f);
	if (!pw)
		return err_set(e, ENOENT, "there is no user '%.60s' here", name);
	c->uid = pw->pw_uid;
	c->gid = pw->pw_gid;
	snprintf(c->name, sizeof(c->name), "%s", name);
	return 0;
}

/* ---- who we are */

#define CAP(n) (1ull << (n))

static int become(const struct confine *c, struct err *e)
{
	if (initgroups(c->name, c->gid) || setresgid(c->gid, c->gid, c->gid) || setresuid(c->uid, c->uid, c->uid))
		return err_errno(e, "cannot become user %s", c->name);
	return !geteuid() || !setuid(0) ? err_set(e, EPERM, "is still root after becoming user %s", c->name) : 0;
}

int confine_early(const struct confine *c, struct err *e)
{
	/* files of any owner, network interfaces and low ports to be opened */
	uint64_t keep = CAP(CAP_DAC_OVERRIDE) | CAP(CAP_DAC_READ_SEARCH) | CAP(CAP_NET_ADMIN) | CAP(CAP_NET_BIND_SERVICE);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (c->uid && !geteuid())
		return become(c, e); /* no capability outlives that */
	if (geteuid())
		return 0;
	if (c->nothing)
		keep = 0;
	if (c->shares)
		keep |= CAP(CAP_CHOWN) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) | CAP(CAP_SETUID) | CAP(CAP_SETGID);
	if (syscall(SYS_capget, &head, data))
		return err_errno(e, "cannot ask for capabilities");
	for (unsigned i = 0; i < 2; i++) {
		data[i].effective &= (uint32_t)(keep >> (32 * i));
		data[i].permitted &= (uint32_t)(keep >> (32 * i));
		data[i].inheritable = 0;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &head, data) ? err_errno(e, "cannot drop capabilities") : 0;
}

/* ---- system calls */

struct rule {
	int number;
	const char *name;
};

static const struct rule allowed[] = {
#define ALLOW(name) { SCMP_SYS(name), #name },
#define KILL(name)
#include "vm/syscalls.def"
#undef ALLOW
#undef KILL
};

static const struct rule fatal[] = {
#define ALLOW(name)
#define KILL(name) { SCMP_SYS(name), #name },
#include "vm/syscalls.def"
#undef ALLOW
#undef KILL
};

static int add(scmp_filter_ctx f, uint32_t action, int number, unsigned n, const struct scmp_arg_cmp *args)
{
	return seccomp_rule_add_array(f, action, number, n, args);
}

static int rules_plain(scmp_filter_ctx f)
{
	int r = 0;

	for (unsigned i = 0; i < ARRAY_LEN(allowed) && !r; i++)
		r = add(f, SCMP_ACT_ALLOW, allowed[i].number, 0, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(fatal) && !r; i++)
		r = add(f, SCMP_ACT_KILL_PROCESS, fatal[i].number, 0, NULL);
	return r;
}

/* Those whose arguments decide. */
static int rules_careful(scmp_filter_ctx f)
{
	static const uint64_t not_both[] = { 0, PROT_WRITE, PROT_EXEC };
	static const int families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
	static const int mappers[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(pkey_mprotect) };
	const uint64_t spaces = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	const struct scmp_arg_cmp threads = SCMP_A0(SCMP_CMP_MASKED_EQ, spaces | CLONE_THREAD, CLONE_THREAD);
	const struct scmp_arg_cmp no_typing[] = { SCMP_A1(SCMP_CMP_NE, TIOCSTI) };
	const struct scmp_arg_cmp own_process = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid());
	int r = add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &threads);

	if (!r)
		r = add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);
	if (!r)
		r = add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, no_typing);
	if (!r)
		r = add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &own_process);
	if (!r)
		r = add(f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, &own_process);
	for (unsigned i = 0; i < ARRAY_LEN(families) && !r; i++) {
		const struct scmp_arg_cmp family = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]);

		r = add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &family);
	}
	for (unsigned i = 0; i < ARRAY_LEN(mappers) && !r; i++) {
		for (unsigned k = 0; k < ARRAY_LEN(not_both) && !r; k++) {
			const struct scmp_arg_cmp prot = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, not_both[k]);

			r = add(f, SCMP_ACT_ALLOW, mappers[i], 1, &prot);
		}
	}
	return r;
}

static int filter_load(struct err *e)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = f ? 0 : -ENOMEM;

	if (!r)
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1); /* all threads, and no_new_privs with it */
	if (!r)
		seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1);
	if (!r)
		seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: the list is long */
	if (!r)
		r = rules_plain(f);
	if (!r)
		r = rules_careful(f);
	if (!r)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return r ? err_set(e, -r, "cannot filter system calls: %s; '--unconfined' does without", strerror(-r)) : 0;
}

int confine_late(struct err *e)
{
#ifdef OSPITE_SANITIZED /* at the end they trace the process to look for leaks */
	return 0;
#endif
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? err_errno(e, "cannot set no_new_privs") : filter_load(e);
}
