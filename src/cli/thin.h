/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thin machines: folders with disks that are overlays (qcow2) of images that several folders have. Those images, the bases, are hard
 * links: a folder has all it needs, no other folder's end takes anything away, and a base lasts as long as somebody has it. Nobody
 * writes a base: it is read-only, owned by who keeps the folders, and every vm.yaml names it only as a backing file.
 */
#ifndef CLI_THIN_H
#define CLI_THIN_H

#include "board/pc.h"
#include "base/err.h"

#define THIN_FILES 64

struct thin {
	char *values[THIN_FILES]; /* of the key "disk", overlays in place of bases */
	unsigned nvalues;
	struct thin_overlay {
		char name[32], *base, format[16];
	} overlay[PC_DISKS];
	unsigned noverlays;
	char *link[THIN_FILES]; /* names in the folder that both have */
	unsigned nlinks;
};

/* What has to be done for a machine like that with this vm.yaml and folder. thin_dispose is right in any case. */
int thin_plan(struct thin *t, const char *yaml, int folder, struct err *e);
/* The new vm.yaml, to be freed: that of the plan with other disks. */
int thin_yaml(const struct thin *t, const char *yaml, char **out, struct err *e);
bool thin_links(const struct thin *t, const char *name); /* a base, or an overlay: not to be copied */
/* What both have goes to the new folder, too; it can no longer be written. */
int thin_link(const struct thin *t, int from, int to, struct err *e);
/* size 0: as large as the base; else of the first disk, if that is smaller. */
int thin_make(const struct thin *t, int folder, uint64_t size, struct err *e);
void thin_dispose(struct thin *t);

/* ---- cmd-clone.c */

/* A machine that others are to be made of: locked, neither running nor suspended, its vm.yaml read (to be freed). */
struct store_vm;
int source_lock(struct store_vm *m, char **yaml, struct err *e);

/* The rest of a folder is copied, without what belongs to a machine's runs; `thin` may be NULL */
int folder_copy(int from, int to, const struct thin *thin, bool quiet, struct err *e);
struct progress;
int file_copy(int from_folder, const char *from, int to_folder, const char *to, struct progress *bar, struct err *e); /* bar: may be NULL */

#endif
