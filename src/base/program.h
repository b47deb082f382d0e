/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

/*
 * Give back the pages of code and constants, ours and the libraries', that this process has mapped: most were for its start. They stay in
 * the host's page cache while it has room; what is used again is mapped again, 64 KiB at a time. Any thread.
 */
void program_give_back(void);

#endif
