/* SPDX-License-Identifier: Apache-2.0 */
/* ospite net: networks between machines, made, listed, shown, watched, removed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/net-client.h"
#include "backend/net-member.h"
#include "backend/net.h"
#include "cli/life.h"
#include "cli/net.h"
#include "net/serve.h"

struct net_args {
	const char *root, *port;
	bool json, quiet, force;
	uint64_t count;
	struct serve_config config;
	const char *word[64];
	unsigned nwords;
};

static int set_root(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->root = v;
	return *v ? 0 : err_set(e, EINVAL, "needs a value");
}
static int set_json(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->json = true;
	return 0;
}
static int set_quiet(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->quiet = true;
	return 0;
}
static int set_force(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->force = true;
	return 0;
}
static int set_keep(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->config.keep = true;
	return 0;
}
static int set_isolate(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->config.sw.isolate = true;
	return 0;
}
static int set_spoofing(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->config.sw.spoofing = true;
	return 0;
}
static int set_uplink(void *into, const char *v, struct err *e)
{
	struct serve_config *c = &((struct net_args *)into)->config;
	struct net_config parsed;

	if (strlen(v) >= sizeof(c->uplink))
		return err_set(e, ENAMETOOLONG, "is too long");
	snprintf(c->uplink, sizeof(c->uplink), "%s", v);
	return uplink_parse(v, &parsed, e);
}
static int set_limit_in(void *into, const char *v, struct err *e)
{
	return net_parse_rate(v, &((struct net_args *)into)->config.limit_in, e);
}
static int set_limit_out(void *into, const char *v, struct err *e)
{
	return net_parse_rate(v, &((struct net_args *)into)->config.limit_out, e);
}
static int set_ageing(void *into, const char *v, struct err *e)
{
	uint64_t n = 0;
	int r = parse_number(v, 1, 86400, &n, e);

	((struct net_args *)into)->config.sw.ageing = (uint32_t)n;
	return r;
}
static int set_port(void *into, const char *v, struct err *e)
{
	((struct net_args *)into)->port = v;
	return 0;
}
static int set_count(void *into, const char *v, struct err *e)
{
	return parse_number(v, 1, UINT64_MAX, &((struct net_args *)into)->count, e);
}

#define ROOT { "root", "FOLDER", "where networks are [the user's data folder]", set_root }
#define QUIET { "quiet", NULL, "say less", set_quiet }
#define JSON { "json", NULL, "for programs", set_json }
#define END { NULL, NULL, NULL, NULL, 0 }

static const struct option_def create_options[] = {
	{ "uplink", "user|tap:IF|bridge:IF[,mtu=N]", "the way out: NAT, or an interface or bridge of the host [none]", set_uplink },
	{ "isolate", NULL, "machines do not reach each other, only the uplink", set_isolate },
	{ "spoofing", NULL, "let machines send from any address (bridges and routers in guests)", set_spoofing },
	{ "limit-in", "RATE", "most that each machine may send: 100Mbit, 12MB (a second)", set_limit_in },
	{ "limit-out", "RATE", "most that each machine is sent", set_limit_out },
	{ "ageing", "SECONDS", "until an unused address is forgotten [300]", set_ageing },
	{ "keep", NULL, "its switch does not end with its last machine", set_keep },
	ROOT, QUIET, END,
};
static const struct option_def ls_options[] = { JSON, QUIET, ROOT, END };
static const struct option_def show_options[] = { JSON, ROOT, END };
static const struct option_def rm_options[] = {
	{ "force", NULL, "also while machines are on it", set_force }, ROOT, QUIET, END,
};
static const struct option_def capture_options[] = {
	{ "port", "MACHINE|N", "only what this port sends and is sent [all]", set_port },
	{ "count", "N", "end after that many frames [with the network, or Ctrl-C]", set_count },
	ROOT, QUIET, END,
};
static const struct option_def plain_options[] = { ROOT, QUIET, END };

/* ---- create, start, stop, rm */

static int start_one(struct net_args *a, struct store *s, const char *name, struct err *e)
{
	int fd = network_start(s, name, e);

	if (fd < 0)
		return fd;
	close(fd);
	if (!a->quiet)
		puts(name);
	return 0;
}

static int net_create(struct net_args *a, struct store *s, struct err *e)
{
	char *text _free_ = serve_config_text(&a->config);
	int r = text ? store_network_create(s, a->word[0], text, e) : err_set(e, ENOMEM, "no memory for a network");

	if (r)
		return r;
	if (a->config.keep) {
		r = start_one(a, s, a->word[0], e);
		if (r)
			store_network_remove(s, a->word[0], NULL);
		return r;
	}
	if (!a->quiet)
		puts(a->word[0]);
	return 0;
}

static int net_start(struct net_args *a, struct store *s, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < a->nwords && !r; i++)
		r = start_one(a, s, a->word[i], e);
	return r;
}

/* Waits for its end; nothing to do where it does not run. */
static int stop_switch(struct store *s, const char *name, struct err *e)
{
	int folder _close_ = store_network_open(s, name, e), fd, lock;
	char answer[256];

	if (folder < 0)
		return folder;
	fd = network_connect(folder, e);
	if (fd >= 0) {
		net_client_ask(fd, "{\"command\": \"stop\"}", answer, sizeof(answer), e);
		close(fd);
	}
	for (unsigned i = 0; i < 100; i++) {
		lock = store_network_lock(folder, e);
		if (lock >= 0) {
			close(lock);
			return 0;
		}
		usleep(50000);
	}
	return err_prefix(e, "network %s does not stop", name);
}

static int net_stop(struct net_args *a, struct store *s, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < a->nwords && !r; i++) {
		r = stop_switch(s, a->word[i], e);
		if (!r && !a->quiet)
			puts(a->word[i]);
	}
	return r;
}

/* How many machines are on it; -1: its switch does not run. */
static int members_of(struct store *s, const char *name)
{
	int folder _close_ = store_network_open(s, name, NULL), fd _close_ = -1, n;
	struct err e = { 0 };
	json_t *all;

	if (folder < 0)
		return -1;
	fd = network_connect(folder, &e);
	if (fd < 0)
		return -1;
	all = network_show(fd, &e);
	n = all ? (int)json_integer_value(json_object_get(all, "members")) : -1;
	json_decref(all);
	return n;
}

static int net_rm(struct net_args *a, struct store *s, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < a->nwords && !r; i++) {
		const char *name = a->word[i];
		int members = members_of(s, name);

		if (members > 0 && !a->force)
			return err_set(e, EBUSY, "%d machine%s on network %s: stop them first ('ospite net show %s' names them), or --force", members,
				       members == 1 ? " is" : "s are", name, name);
		r = stop_switch(s, name, e);
		if (!r)
			r = store_network_remove(s, name, e);
		if (!r && !a->quiet)
			puts(name);
	}
	return r;
}

/* ---- ls, show */

static json_t *describe(struct store *s, const char *name, struct err *e)
{
	int folder _close_ = store_network_open(s, name, e), fd _close_ = -1;
	char *text _free_ = NULL;
	struct serve_config c;
	json_t *o, *live = NULL;

	if (folder < 0 || store_read(folder, "network.json", &text, e) || serve_config_parse(text, &c, e))
		return NULL;
	o = json_loads(text, 0, NULL);
	json_object_set_new(o, "network", json_string(name));
	if (!json_object_get(o, "uplink"))
		json_object_set_new(o, "uplink", json_null());
	fd = network_connect(folder, e);
	if (fd >= 0)
		live = network_show(fd, e);
	json_object_set_new(o, "running", json_boolean(live));
	json_object_set_new(o, "members", json_integer(json_integer_value(json_object_get(live, "members"))));
	if (live)
		json_object_set(o, "ports", json_object_get(live, "ports"));
	json_decref(live);
	*e = (struct err){ 0 };
	return o;
}

static int net_ls(struct net_args *a, struct store *s, struct err *e)
{
	static const struct column columns[] = {
		{ "network", "NETWORK", false }, { "running", "RUNNING", false }, { "members", "MACHINES", true },
		{ "uplink", "UPLINK", false },   { "isolate", "ISOLATE", false }, { "spoofing", "SPOOFING", false },
		{ "limit-in", "LIMIT-IN", true }, { "limit-out", "LIMIT-OUT", true }, { NULL, NULL, false },
	};
	json_t *rows = json_array();
	char **names;
	unsigned n;
	int r = store_list(s, &names, &n, e);

	for (unsigned i = 0; !r && i < n; i++) {
		json_t *o = a->quiet ? NULL : describe(s, names[i], e);

		if (a->quiet) {
			puts(names[i]);
		} else if (o) {
			json_object_del(o, "ports");
			json_array_append_new(rows, o);
		} else {
			cli_fail("network %s: %s", names[i], e->text);
		}
		free(names[i]);
	}
	if (!r)
		free(names);
	if (!r && !a->quiet)
		table_print(rows, columns, a->json);
	json_decref(rows);
	return r;
}

static int net_show(struct net_args *a, struct store *s, struct err *e)
{
	static const struct column columns[] = {
		{ "port", "PORT", true },	   { "name", "MACHINE", false },     { "mac", "ADDRESS", false },
		{ "vlan", "VLAN", true },	   { "trunk", "TRUNK", false },      { "in-frames", "IN", true },
		{ "in-bytes", "BYTES", true },	   { "out-frames", "OUT", true },    { "out-bytes", "BYTES", true },
		{ "dropped", "DROPPED", true },	   { "queued-frames", "WAITING", true }, { NULL, NULL, false },
	};
	json_t *o = describe(s, a->word[0], e), *port;
	size_t i;

	if (!o)
		return -e->code;
	if (a->json) {
		print_json(o);
		json_decref(o);
		return 0;
	}
	printf("network %s: %s, uplink %s%s%s\n", a->word[0], json_is_true(json_object_get(o, "running")) ? "its switch runs" : "its switch does not run",
	       json_string_value(json_object_get(o, "uplink")) ?: "none",
	       json_is_true(json_object_get(o, "isolate")) ? ", machines isolated from each other" : "",
	       json_is_true(json_object_get(o, "spoofing")) ? ", any source address" : ", false sources refused");
	json_array_foreach(json_object_get(o, "ports"), i, port) {
		static const char *const drops[] = { "malformed", "spoofed", "wrong-vlan", "queue-full", "send-failed" };
		json_int_t sum = 0;

		for (unsigned d = 0; d < ARRAY_LEN(drops); d++)
			sum += json_integer_value(json_object_get(port, drops[d]));
		json_object_set_new(port, "dropped", json_integer(sum));
	}
	if (json_array_size(json_object_get(o, "ports")))
		table_print(json_object_get(o, "ports"), columns, false);
	json_decref(o);
	return 0;
}

static int capture(struct net_args *a, struct store *s, struct err *e)
{
	int folder _close_ = store_network_open(s, a->word[0], e), r;

	if (folder < 0)
		return folder;
	r = net_capture(folder, a->port, a->word[1], a->count ? a->count : UINT64_MAX, a->quiet, e);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return err_prefix(e, "network %s (its switch runs while a machine is on it, or after 'ospite net start %s')", a->word[0], a->word[0]);
	return r;
}

/* ---- the command */

static const struct net_verb {
	const char *name, *args, *help;
	unsigned min, max;
	const struct option_def *options;
	int (*run)(struct net_args *a, struct store *s, struct err *e);
} verbs[] = {
	{ "create", "NAME", "make a network; machines join it with --net switch:NAME", 1, 1, create_options, net_create },
	{ "ls", "", "list the networks", 0, 0, ls_options, net_ls },
	{ "show", "NAME", "show a network, its ports and their counters", 1, 1, show_options, net_show },
	{ "capture", "NAME FILE", "write frames to a file for tcpdump and Wireshark; - is standard output", 2, 2, capture_options, capture },
	{ "start", "NAME...", "start the switch of networks before any machine does", 1, 64, plain_options, net_start },
	{ "stop", "NAME...", "end the switch of networks; machines lose their links", 1, 64, plain_options, net_stop },
	{ "rm", "NAME...", "remove networks", 1, 64, rm_options, net_rm },
	{ NULL, NULL, NULL, 0, 0, NULL, NULL },
};

bool net_verb(unsigned i, struct verb_help *v)
{
	if (i + 1 >= ARRAY_LEN(verbs))
		return false;
	*v = (struct verb_help){ verbs[i].name, verbs[i].args, verbs[i].help, verbs[i].options };
	return true;
}

static void print_help(const struct net_verb *v)
{
	if (v) {
		printf("Usage: ospite net %s %s [OPTION...]\n%c%s.\n\n", v->name, v->args, v->help[0] - 'a' + 'A', v->help + 1);
		options_print(stdout, v->options);
		return;
	}
	puts("Usage: ospite net VERB [NAME...] [OPTION...]\n");
	for (v = verbs; v->name; v++)
		printf("  %-9s %-10s %s\n", v->name, v->args, v->help);
	puts("\nEach explains itself: ospite net create --help. A network is a switch between machines: its process starts with\n"
	     "the first machine on it and ends with the last.");
}

static int take_word(void *into, const char *word, struct err *e)
{
	struct net_args *a = into;

	if (a->nwords == ARRAY_LEN(a->word))
		return err_set(e, E2BIG, "too many names");
	a->word[a->nwords++] = word;
	return 0;
}

static int net_run(const struct net_verb *v, int argc, char **argv, struct err *e)
{
	struct net_args a = { 0 };
	struct store s;
	int r = options_parse_words(v->options, &a, argc, argv, take_word, e);

	if (!r && (a.nwords < v->min || a.nwords > v->max))
		r = err_set(e, EINVAL, "usage: ospite net %s %s [OPTION...]; see 'ospite net %s --help'", v->name, v->args, v->name);
	if (!r)
		r = store_networks_open(&s, a.root, e);
	if (r)
		return r;
	r = v->run(&a, &s, e);
	store_close(&s);
	return r;
}

int cmd_net(int argc, char **argv)
{
	const struct net_verb *v = verbs;
	const char *names[16], *near;
	struct err e = { 0 };
	unsigned n = 0;

	if (argc < 2 || argv[1][0] == '-') {
		print_help(NULL);
		return argc > 1 && options_want_help(argc, argv) ? 0 : EXIT_OURS;
	}
	while (v->name && strcmp(v->name, argv[1]))
		names[n++] = v++->name;
	if (!v->name) {
		near = nearest(argv[1], names, n);
		return near ? cli_fail("unknown 'net %.60s'; did you mean 'net %s'?", argv[1], near) :
			      cli_fail("unknown 'net %.60s'; 'ospite net --help' lists the verbs", argv[1]);
	}
	argc--;
	argv++;
	if (options_want_help(argc, argv)) {
		print_help(v);
		return 0;
	}
	return net_run(v, argc, argv, &e) ? cli_fail("%s", e.text) : 0;
}
