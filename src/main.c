/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Placeholder so that the tree builds from the first commit: the command is assembled here. */
int main(void) { return 1; }
