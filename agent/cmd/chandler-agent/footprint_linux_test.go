package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyWhatWasNeverWrittenOfTheProgramIsLetGo(t *testing.T) {
	const clean = "Size:  14300 kB\nAnonymous:             0 kB\nLazyFree:  0 kB\nSwap:                  0 kB\nVmFlags: rd ex mr mw me\n"
	const (
		text      = "00400000-00500000 r-xp 00000000 fe:00 10023626   /usr/bin/chandler-agent\n"
		constants = "00500000-00700000 r--p 00df7000 fe:00 10023626   /usr/bin/chandler-agent\n"
	)
	for name, c := range map[string]struct {
		maps string
		want []mapping
	}{
		"its text and its constants":        {text + clean + constants + clean, []mapping{{0x400000, 0x100000}, {0x500000, 0x200000}}},
		"constants that were relocated":     {constants + strings.Replace(clean, "Anonymous:             0", "Anonymous:          3776", 1), nil},
		"such that were swapped out":        {constants + strings.Replace(clean, "Swap:                  0", "Swap:               3776", 1), nil},
		"its text, after such constants":    {constants + strings.Replace(clean, "Anonymous:             0", "Anonymous:             4", 1) + text + clean, []mapping{{0x400000, 0x100000}}},
		"a system that does not say":        {text + "Size:  14300 kB\n" + constants + "Anonymous: 0 kB\n", nil},
		"its variables":                     {strings.Replace(text, "r-xp", "rw-p", 1) + clean, nil},
		"another file":                      {strings.Replace(text, "/usr/bin/chandler-agent", "/usr/lib/libc.so.6", 1) + clean, nil},
		"no file, after the program's text": {text + "c000000000-c004000000 r--p 00000000 00:00 0\n" + clean, nil},
		"a program that was replaced":       {strings.Replace(text, "\n", " (deleted)\n", 1) + clean, nil},
		"not a range":                       {strings.Replace(text, "00400000-00500000", "00400000-", 1) + clean, nil},
		"a range backwards":                 {strings.Replace(text, "00400000-00500000", "00500000-00400000", 1) + clean, nil},
		"permissions cut":                   {strings.Replace(text, "r-xp", "r", 1) + clean, nil},
		"nothing":                           {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, unwritten(c.maps, "/usr/bin/chandler-agent"), cmp.AllowUnexported(mapping{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if len(unwritten(string(maps), self)) == 0 {
		t.Error("nothing of this program would be let go")
	}
}

// TestAPositionIndependentProgramLivesOnWithoutItsPages builds one, as distributions do, that lets go of its pages.
func TestAPositionIndependentProgramLivesOnWithoutItsPages(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("footprint_linux.go")
	if err != nil {
		t.Fatal(err)
	}
	const main = `package main

import "fmt"

func main() {
	dropProgramPages()
	fmt.Printf("%v %d\n", map[string]error{"alive": nil}, len(fmt.Sprintf("%T", dropProgramPages)))
}
`
	for name, text := range map[string]string{"main.go": main, "footprint_linux.go": string(source)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-buildmode=pie", "-o", program, filepath.Join(dir, "main.go"), filepath.Join(dir, "footprint_linux.go"))
	if out, err := build.CombinedOutput(); err != nil { // here, where go.mod names what it imports
		t.Fatalf("build: %v\n%s", err, out)
	}
	if out, err := exec.Command(program).CombinedOutput(); err != nil || string(out) != "map[alive:<nil>] 6\n" {
		t.Errorf("it ended with %v and said:\n%.2000s", err, out)
	}
}
