/* SPDX-License-Identifier: Apache-2.0 */
/* The command table, and the only place the process exits from. */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/life.h"

const struct command commands[] = {
	{ "run", "start a machine with its console in this terminal", cmd_run },
	{ "create", "make a machine, to be started", cmd_create },
	{ "engines", "list the engines and whether they work on this host", cmd_engines },
	{ "image", "make, show, convert and repair disk images", cmd_image },
	{ "template", "make, list and remove what machines are made of", cmd_template },
	{ "net", "make, list, show and watch networks between machines", cmd_net },
	{ "completion", "print completion for a shell, or the manual page", cmd_completion },
	{ "help", "show this, or the help of a command: ospite help run", cmd_help },
	{ "version", "show the version", cmd_version },
	{ NULL, NULL, NULL },
};

int cli_fail(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* File names are foreign text: keep it one line and off the terminal's control codes. */
	text_clean(line);
	fprintf(stderr, "ospite: %s\n", line);
	return EXIT_OURS;
}

static const char *const elsewhere[][2] = {
	{ "ls", "ps" }, { "list", "ps --all" }, { "images", "template list" }, { "rmi", "template rm" }, { "pull", "template create" },
	{ "build", "template create" }, { "shutdown", "stop" }, { "poweroff", "stop" }, { "halt", "stop" }, { "destroy", "kill" },
	{ "reboot", "reset" }, { "restart", "reset" }, { "attach", "console" }, { "inspect", "info" }, { "show", "info" }, { "status", "info" },
	{ "dominfo", "info" }, { "save", "suspend" }, { "restore", "resume" }, { "unpause", "resume" }, { "delete", "rm" }, { "remove", "rm" },
	{ "undefine", "rm" }, { "edit", "config" }, { "define", "create" }, { "launch", "run" }, { "shell", "ssh" }, { "update", "set" },
	{ "disk", "image" }, { "volume", "image" }, { "network", "net" }, { "copy", "cp" }, { "monitor", "ctl" }, { "log", "logs" },
	{ NULL, NULL },
};

static int unknown_command(const char *word)
{
	const char *names[64], *near;
	unsigned n = 0;

	for (const struct command *c = commands; c->name && n < ARRAY_LEN(names); c++)
		names[n++] = c->name;
	for (const struct life_command *c = life_commands; c->name && n < ARRAY_LEN(names); c++)
		names[n++] = c->name;
	near = known_as(word, elsewhere) ?: nearest(word + strspn(word, "-"), names, n);
	if (near)
		return cli_fail("unknown command '%.60s'; did you mean '%s'?", word, near);
	return cli_fail("unknown command '%.60s'; 'ospite help' lists them", word);
}

static int dispatch(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "help";

	if (!strcmp(word, "--help") || !strcmp(word, "-h"))
		word = "help";
	if (!strcmp(word, "--version") || !strcmp(word, "-V"))
		word = "version";
	for (const struct command *c = commands; c->name; c++) {
		if (!strcmp(c->name, word))
			return argc > 1 ? c->main(argc - 1, argv + 1) : (cmd_help(1, argv), EXIT_OURS);
	}
	if (life_find(word))
		return cmd_life(argc - 1, argv + 1);
	return unknown_command(word);
}

void ends_set(sigset_t *set)
{
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP };

	sigemptyset(set);
	for (unsigned i = 0; i < ARRAY_LEN(ends); i++) {
		struct sigaction act;

		if (sigaction(ends[i], NULL, &act) || act.sa_handler != SIG_IGN)
			sigaddset(set, ends[i]);
	}
}

static void stay(int number)
{
}

/*
 * A caller may have closed 0, 1 or 2. The next file opened, an image perhaps, would then be where messages go: so something harmless is
 * there first, empty to readers and refusing writers. And beyond `ulimit -f` a write shall fail (EFBIG), which is answered where it is
 * made; by default the process would be killed, a running machine by what its guest writes. A handler, since programs we start get the
 * default back. Whatever the umask, we can use what we make.
 */
static void prepare(void)
{
	struct sigaction act = { .sa_handler = stay, .sa_flags = SA_RESTART };

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY | O_NOCTTY) < 0)
			open("/", O_RDONLY | O_DIRECTORY); /* no /dev here */
	sigaction(SIGXFSZ, &act, NULL);
	umask(umask(077) & 077);
}

int main(int argc, char **argv)
{
	int status;

	prepare();
	status = dispatch(argc, argv);
	if (fflush(stdout) || ferror(stdout))
		status = cli_fail("cannot write to standard output");
	return status;
}
