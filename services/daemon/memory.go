package daemon

// KeepMemoryPrivate is for programs that hold secrets, called once by their main: no core is dumped of this process,
// and no other process of the same user reads its memory. Programs that it starts may be read again, and may dump a
// core if they raise their limit. On Windows, Go's own handling of faults writes no dumps.
func KeepMemoryPrivate() error { return keepMemoryPrivate() }
