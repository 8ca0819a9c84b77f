/* Keeps the archive from being empty until the room has its first file. */
int dio_placeholder;
