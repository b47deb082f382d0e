// SPDX-License-Identifier: Apache-2.0
/*
 * ospite-diff: compares an engine with the host's CPU.
 *
 *	ospite-diff --engine interp --seed 1 --count 100000
 *	ospite-diff --mnemonic vpermd --count 20000       every case has it
 *	ospite-diff --case 0x1234                         one case, by the seed a failure printed
 *	ospite-diff --replay tests/diff/regressions/x.txt ...
 *
 * Exit status: 0 all agree, 1 differences, 77 this host cannot run it.
 */
#include <Zydis/Zydis.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "diff.h"
#include "isa/insn.h"

struct options {
	const char *engine, *oracle, *mnemonic, *save;
	uint64_t seed, one_case, count;
	unsigned max_fail, seconds;
	int mode;
	bool attack, relaxed, has_case, coverage, verbose;
	char **replay;
	int nreplay;
};

struct totals {
	uint64_t cases, compared, by_status[8], insns;
	unsigned failures;
	unsigned per_culprit[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned covered[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	uint64_t vectors[32];
};

struct run {
	struct options o;
	struct generator g;
	struct bench bench;
	struct totals t;
	uint8_t *images;
	struct diff_case cases[BATCH];
	struct diff_result *results[2];
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint16_t mnemonic_by_name(const char *name)
{
	for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		if (!strcasecmp(mnemonic_name((uint16_t)m), name))
			return (uint16_t)m;
	return 0;
}

static void save_case(const struct run *r, const struct diff_case *c, const char *why)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s-%016llx.txt", r->o.save, mnemonic_name(diff_culprit(c)),
		 (unsigned long long)c->seed);
	f = fopen(path, "w");
	if (!f) {
		fprintf(stderr, "%s: %m\n", path);
		return;
	}
	case_write(f, c, why);
	fclose(f);
}

static void report(struct run *r, const struct diff_case *found)
{
	struct diff_case c = *found;
	struct difference d;

	r->t.failures++;
	if (!bench_try(&r->bench, &c, &d)) {
		printf("case 0x%016llx differed once and not again\n", (unsigned long long)c.seed);
		return;
	}
	diff_minimise(&r->bench, &c);
	diff_compare(&c, r->bench.result[0], r->bench.result[1], &d);
	if (r->t.per_culprit[diff_culprit(&c)]++ >= 2 && !r->o.verbose)
		return;
	printf("DIFFERENCE in %s: %s\n", mnemonic_name(diff_culprit(&c)), d.text);
	printf("  --case 0x%llx%s%s%s%s, %d-bit\n", (unsigned long long)c.seed, r->o.attack ? " --attack" : "",
	       r->o.mnemonic ? " --mnemonic " : "", r->o.mnemonic ? r->o.mnemonic : "",
	       r->o.mode == DIFF_32 ? " --mode 32" : r->o.mode == DIFF_64 ? " --mode 64" : "",
	       c.mode == DIFF_64 ? 64 : 32);
	diff_print(stdout, &c, r->bench.result[0], r->bench.result[1], r->images);
	fflush(stdout);
	if (r->o.save)
		save_case(r, &c, d.text);
}

static void count_coverage(struct run *r, const struct diff_case *c, const struct diff_result *want)
{
	uint64_t stop = want->out.rip - ARENA_CODE - c->code_at;

	r->t.vectors[want->vector & 31]++;
	for (unsigned k = 0; k < c->ninsns && (c->insn[k].at <= stop || stop > CODE_MAX); k++) {
		r->t.covered[c->insn[k].mnemonic]++;
		r->t.insns++;
	}
}

/*
 * AddressSanitizer's shadow memory lies in the native child's address space, so a stray access that faults in an
 * engine finds memory there. Such a case says nothing.
 */
static bool hit_shadow(const struct diff_result *got)
{
#ifdef __SANITIZE_ADDRESS__
	return got->status == DIFF_DONE && got->vector == 14 && got->cr2 >= 0x7fff8000 &&
	       got->cr2 < 0x10007fff8000;
#else
	return false;
#endif
}

static void run_batch(struct run *r, unsigned n)
{
	bool skip[BATCH] = { false };
	struct difference d;

	for (unsigned i = 0; i < n; i++)
		r->results[0][i].status = r->results[1][i].status = DIFF_NOT_RUN;
	r->bench.engine[0]->run(r->bench.data[0], r->cases, r->results[0], n, skip);
	for (unsigned i = 0; i < n; i++)
		skip[i] = r->results[0][i].status != DIFF_DONE;
	r->bench.engine[1]->run(r->bench.data[1], r->cases, r->results[1], n, skip);
	for (unsigned i = 0; i < n; i++) {
		r->t.cases++;
		r->t.by_status[r->results[0][i].status]++;
		if (skip[i])
			continue;
		if (r->results[1][i].status == DIFF_REFUSED || hit_shadow(&r->results[1][i])) {
			r->t.by_status[DIFF_REFUSED]++;
			continue;
		}
		r->t.compared++;
		count_coverage(r, &r->cases[i], &r->results[0][i]);
		diff_compare(&r->cases[i], &r->results[0][i], &r->results[1][i], &d);
		if (d.differs && r->t.failures < r->o.max_fail)
			report(r, &r->cases[i]);
	}
}

static void generate_and_run(struct run *r)
{
	double end = now() + r->o.seconds;
	uint64_t count = r->o.has_case ? 1 : r->o.seconds ? UINT64_MAX : r->o.count;

	for (uint64_t at = 0; at < count && r->t.failures < r->o.max_fail;) {
		unsigned n = (unsigned)MIN(count - at, (uint64_t)BATCH);

		for (unsigned i = 0; i < n; i++) {
			uint64_t seed = rng_mix(r->o.seed * 0x9e3779b97f4a7c15ull + at + i);

			generate_case(&r->g, r->o.has_case ? r->o.one_case : seed, &r->cases[i]);
			r->cases[i].relaxed = r->o.relaxed;
		}
		run_batch(r, n);
		at += n;
		if (r->o.seconds && now() >= end)
			break;
	}
}

static bool replay(struct run *r)
{
	bool ok = true;

	for (int i = 0; i < r->o.nreplay; i++) {
		char error[100];
		FILE *f = fopen(r->o.replay[i], "r");
		struct difference d;
		struct diff_case *c = &r->cases[0];

		if (!f || !case_read(f, c, error, sizeof(error))) {
			printf("%s: %s\n", r->o.replay[i], f ? error : strerror(errno));
			ok = false;
		} else if (c->relaxed = r->o.relaxed, c->mode == DIFF_32 && !r->g.host.compat) {
			r->t.by_status[DIFF_REFUSED]++;
		} else if (bench_try(&r->bench, c, &d)) {
			printf("REGRESSION %s: %s\n", r->o.replay[i], d.text);
			diff_print(stdout, c, r->bench.result[0], r->bench.result[1], r->images);
			r->t.failures++;
		} else {
			r->t.cases++;
			r->t.compared += r->bench.result[0]->status == DIFF_DONE;
		}
		if (f)
			fclose(f);
	}
	return ok;
}

/* Which of the instructions we implement no case has reached. */
static void print_coverage(const struct run *r)
{
	unsigned missing = 0;

	printf("not covered:");
	for (unsigned op = 1; op < OP_COUNT; op++) {
		uint16_t m = mnemonic_by_name(insn_name((enum insn_op)op));

		if (m && r->t.covered[m])
			continue;
		printf(" %s", insn_name((enum insn_op)op));
		missing++;
	}
	printf("\n%u of %u mnemonics of the instruction table not covered\n", missing, OP_COUNT - 1);
}

static void summary(const struct run *r, double seconds)
{
	unsigned covered = 0;

	for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		covered += r->t.covered[m] != 0;
	printf("%llu cases, %llu compared (%.0f a second), %llu instructions of %u mnemonics; skipped: "
	       "%llu timeouts, %llu system calls, %llu crashes natively, %llu refused; "
	       "%u encodings the host lacks\n",
	       (unsigned long long)r->t.cases, (unsigned long long)r->t.compared,
	       (double)r->t.compared / MAX(seconds, 1e-6), (unsigned long long)r->t.insns, covered,
	       (unsigned long long)r->t.by_status[DIFF_TIMEOUT],
	       (unsigned long long)r->t.by_status[DIFF_SYSCALL],
	       (unsigned long long)r->t.by_status[DIFF_CRASH],
	       (unsigned long long)r->t.by_status[DIFF_REFUSED],
	       r->g.catalogue[0]->unsupported + r->g.catalogue[1]->unsupported);
	printf("exceptions:");
	for (unsigned v = 0; v < 32; v++)
		if (r->t.vectors[v])
			printf(" %u:%llu", v, (unsigned long long)r->t.vectors[v]);
	printf("\n");
	if (r->t.failures) {
		printf("%u DIFFERENCES:", r->t.failures);
		for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
			if (r->t.per_culprit[m])
				printf(" %s:%u", mnemonic_name((uint16_t)m), r->t.per_culprit[m]);
		printf("\n");
	}
}

static void usage(FILE *f)
{
	fputs("ospite-diff [--engine interp|dbt|native|wrong] [--oracle native] [--seed N] [--count N]\n"
	      "            [--time SECONDS] [--mnemonic NAME] [--mode 64|32] [--attack] [--relaxed] [--max-fail N]\n"
	      "            [--case SEED] [--save FOLDER] [--coverage] [--verbose] [--replay FILE...]\n",
	      f);
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "engine", 1, 0, 'e' },   { "oracle", 1, 0, 'o' },   { "seed", 1, 0, 's' },
		{ "count", 1, 0, 'n' },	   { "mnemonic", 1, 0, 'm' }, { "mode", 1, 0, 'M' },
		{ "attack", 0, 0, 'a' }, { "relaxed", 0, 0, 'R' },   { "max-fail", 1, 0, 'f' }, { "case", 1, 0, 'c' },
		{ "save", 1, 0, 'S' },	   { "coverage", 0, 0, 'C' }, { "verbose", 0, 0, 'v' },
		{ "replay", 0, 0, 'r' },   { "time", 1, 0, 't' },     { "help", 0, 0, 'h' },
		{ 0 },
	};
	bool wants_replay = false;
	int c;

	*o = (struct options){ .engine = "interp", .oracle = "native", .seed = 1, .count = 20000,
			       .max_fail = 10, .mode = -1 };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'e': o->engine = optarg; break;
		case 'o': o->oracle = optarg; break;
		case 's': o->seed = strtoull(optarg, NULL, 0); break;
		case 'n': o->count = strtoull(optarg, NULL, 0); break;
		case 'm': o->mnemonic = optarg; break;
		case 'M': o->mode = atoi(optarg) == 32 ? DIFF_32 : DIFF_64; break;
		case 'a': o->attack = true; break;
		case 'R': o->relaxed = true; break;
		case 'f': o->max_fail = (unsigned)atoi(optarg); break;
		case 'c': o->one_case = strtoull(optarg, NULL, 0); o->has_case = true; break;
		case 'S': o->save = optarg; break;
		case 'C': o->coverage = true; break;
		case 'v': o->verbose = true; break;
		case 'r': wants_replay = true; break;
		case 't': o->seconds = (unsigned)atoi(optarg); break;
		default: usage(c == 'h' ? stdout : stderr); return c == 'h' ? 0 : 2;
		}
	}
	if (wants_replay) {
		o->replay = argv + optind;
		o->nreplay = argc - optind;
		if (!o->nreplay)
			return 0; /* no regressions are stored: nothing to do */
	}
	return -1;
}

static const struct diff_engine *const engines[] = { &diff_native, &diff_wrong, &diff_guest };

static bool open_engine(struct bench *b, unsigned k, const char *name)
{
	const struct diff_engine *e = &diff_guest;

	for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
		if (!strcmp(engines[i]->name, name))
			e = engines[i];
	b->engine[k] = e;
	b->data[k] = e->create(name);
	return b->data[k];
}

int main(int argc, char **argv)
{
	struct run *r = calloc(1, sizeof(*r));
	double start = now();
	int status;
	bool ok = true;

	CHECK(r);
	status = parse(&r->o, argc, argv);
	if (status >= 0)
		return status;
	host_probe(&r->g.host);
	r->g.only_mode = r->o.mode;
	r->g.attack = r->o.attack;
	if (r->o.mnemonic && !(r->g.only = mnemonic_by_name(r->o.mnemonic))) {
		fprintf(stderr, "no such mnemonic: %s\n", r->o.mnemonic);
		return 2;
	}
	r->images = images_create();
	for (unsigned k = 0; k < 2; k++) {
		r->results[k] = calloc(BATCH, sizeof(struct diff_result));
		r->bench.result[k] = calloc(1, sizeof(struct diff_result));
		r->g.catalogue[k] = catalogue_create(&r->g.host, (enum diff_mode)k);
		CHECK(r->results[k] && r->bench.result[k]);
	}
	if (!open_engine(&r->bench, 0, r->o.oracle) || !open_engine(&r->bench, 1, r->o.engine)) {
		fprintf(stderr, "no such engine here\n");
		return 77;
	}
	r->g.host.compat = native_runs_compat();
	if (r->o.replay)
		ok = replay(r);
	else
		generate_and_run(r);
	summary(r, now() - start);
	if (r->o.coverage)
		print_coverage(r);
	for (unsigned k = 0; k < 2; k++) {
		r->bench.engine[k]->destroy(r->bench.data[k]);
		catalogue_destroy(r->g.catalogue[k]);
		free(r->results[k]);
		free(r->bench.result[k]);
	}
	status = r->t.failures || !ok;
	free(r->images);
	free(r);
	return status;
}
