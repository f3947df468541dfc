// Package backup writes a fleet to one file, and makes a data directory of such a file again.
//
// The file is a tar archive, encrypted with age where it holds keys. Its first entry, manifest.json, lists every
// other with its size and SHA-256, in their order: streams and buckets as the broker itself copies them
// (JetStream's snapshots), and the files of the data directory.
//
// # What is in it, and in which order
//
// A backup is taken while everything runs, and the streams are copied one after the other. So that nothing is
// forgotten after a restore, what tells of a change is copied after what the change was made in, and what was done with
// a message is copied after the position up to which messages are done with:
//
//	positions of the durable readers   first: what they did with later messages, they do again (every handler is idempotent)
//	buckets, then FOLD                 what services know
//	snapshots of FOLD                  after FOLD: a delta that is missing there is in a snapshot
//	orders, stops and freezes          after FOLD, whose jobs name orders
//	EVENTS, TIMERS                     after all that they tell of: nothing counts as told that is not in there
//	STATUS, HISTORY, JOBS              after FOLD, which is never ahead of what it was folded from
//	LOGS, DEADLETTER                   nothing depends on them
//	files                              last: a package's bytes are there before the package is in its bucket
//
// The broker copies a stream up to the last message that it held when it began. A bucket keeps the newest messages
// of each key alone, so that a key which is written meanwhile would be in the copy with neither its former value
// nor its new one; what came since is therefore read after the copy, until there is no more, and kept beside it.
// What an administrator changes while a backup is taken is in it, in part, or not.
//
// # Restoring
//
// [Verify] reads all of the archive before anything is changed; [Extract] reads it again, and holds it against the
// same digests. Streams keep their sequences and begin anew in the broker's eyes, with another time of creation:
// that is a new generation, so that every agent asks what is outstanding and tells what it keeps (package
// execution). What agents did since the backup they say then, from their journals; nothing runs twice.
//
// # On failure
//
// Writing fails where the broker ends a copy early, a message is missing in it, or a file changes while it
// is read; the file under its own name is written by the caller once all is well. Reading bounds the manifest,
// the number of entries and the length of names, takes only the entries that the manifest lists, with names that
// stay below the directory on every operating system, and fails on a byte too few, too many, or other.
package backup
