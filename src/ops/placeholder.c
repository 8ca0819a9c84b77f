/* Keeps the archive from being empty until the room has its first file. */
int ops_placeholder;
