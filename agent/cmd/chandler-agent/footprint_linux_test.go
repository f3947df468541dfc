package main

import "testing"

func TestOnlyWhatCannotBeWrittenOfTheProgramIsLetGo(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		ok   bool
	}{
		"its text":           {"00400000-011f7000 r-xp 00000000 fe:00 10023626   /usr/bin/chandler-agent\n", true},
		"its constants":      {"011f7000-02262000 r--p 00df7000 fe:00 10023626   /usr/bin/chandler-agent\n", true},
		"its variables":      {"02262000-02300000 rw-p 01e62000 fe:00 10023626   /usr/bin/chandler-agent\n", false},
		"another file":       {"7f0000000000-7f0000001000 r--p 00000000 fe:00 12   /usr/lib/libc.so.6\n", false},
		"no file":            {"c000000000-c004000000 rw-p 00000000 00:00 0\n", false},
		"a mended program":   {"00400000-011f7000 r-xp 00000000 fe:00 10023626   /usr/bin/chandler-agent (deleted)\n", false},
		"not a range":        {"00400000 r-xp 00000000 fe:00 10023626   /usr/bin/chandler-agent\n", false},
		"a range backwards":  {"00400000-00300000 r-xp 00000000 fe:00 10023626   /usr/bin/chandler-agent\n", false},
		"permissions cut":    {"00400000-00500000 r 00000000 fe:00 10023626   /usr/bin/chandler-agent\n", false},
		"an empty last line": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			start, length, ok := readOnlyPart(c.line, "/usr/bin/chandler-agent")
			if ok != c.ok || ok != (length > 0) || ok != (start > 0) {
				t.Errorf("%v: %x, %x", ok, start, length)
			}
		})
	}
	dropProgramPages() // and the program goes on
}
