/* SPDX-License-Identifier: Apache-2.0 */
/* ospite help, ospite version. */
#include <string.h>
#include "cli/cli.h"
#include "cli/life.h"

int cmd_help(int argc, char **argv)
{
	char *help[] = { argc > 1 ? argv[1] : NULL, "--help", NULL };

	for (const struct command *c = commands; argc > 1 && c->name; c++) {
		if (!strcmp(c->name, argv[1]) && c->main != cmd_help)
			return c->main(2, help);
	}
	if (argc > 1 && life_find(argv[1])) {
		help[0] = argv[1];
		return cmd_life(2, help);
	}
	if (argc > 1 && argv[1][0] != '-' && strcmp(argv[1], "help"))
		return cli_fail("no command '%.60s'; 'ospite help' lists them", argv[1]);
	puts("ospite runs unmodified x86-64 operating systems in virtual machines.\n"
	     "\n"
	     "Usage: ospite COMMAND [OPTION...]\n");
	for (const struct command *c = commands; c->name; c++)
		printf("  %-10s %s\n", c->name, c->help);
	puts("\nMachines with a folder:\n");
	for (const struct life_command *c = life_commands; c->name; c++)
		printf("  %-10s %s\n", c->name, c->help);
	puts("\n"
	     "Every command explains itself with --help. To see a Linux guest boot here:\n"
	     "\n"
	     "  ospite run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n"
	     "\n"
	     "Exit status: what the command says; 125 for errors of ospite itself.");
	return 0;
}

int cmd_version(int argc, char **argv)
{
	if (options_want_help(argc, argv))
		puts("Usage: ospite version\nShows the version of ospite.");
	else
		puts("ospite " OSPITE_VERSION);
	return 0;
}
