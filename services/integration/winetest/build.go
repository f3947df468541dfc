package winetest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// Build builds a command of this module for Windows, by its import path, and gives the path of the program.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, path.Base(pkg)+".exe", "build", pkg)
}

// BuildTest builds the tests of a package of this module for Windows and gives the path of the program.
func BuildTest(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, path.Base(pkg)+".test.exe", "test", pkg)
}

func build(t testing.TB, name, how, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	args := []string{how, "-overlay", overlay(t), "-o", program}
	if how == "test" {
		args = append(args, "-c")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s for Windows: %v\n%s", pkg, err, out)
	}
	return program
}

// How Go tells that Windows is too old for its usual way to remove a file, and with what Wine 8 answers besides.
const (
	tooOld       = "STATUS_NOT_SUPPORTED:"
	tooOldOrWine = "NTStatus(0xC0000002 /* not implemented */), " + tooOld
)

// overlay has Go's library take Wine 8's answer for that of an old Windows. Else os.RemoveAll removes nothing there.
func overlay(t testing.TB) string {
	t.Helper()
	goRoot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("find Go's library: %v", err)
	}
	original := filepath.Join(strings.TrimSpace(string(goRoot)), "src", "internal", "syscall", "windows", "at_windows.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), tooOld) != 1 {
		t.Fatalf("%s does not look as expected: see whether os.RemoveAll works under Wine without change", original)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, "at_windows.go"), filepath.Join(dir, "overlay.json")
	replacements, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]string{changed: strings.Replace(string(text), tooOld, tooOldOrWine, 1), list: string(replacements)} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// BuildMSI makes an MSI of the text of a .wxs file, for 64-bit Windows, and gives its path. Files that it includes are
// looked for beside it: in the working directory.
func BuildMSI(t testing.TB, wxs string) string {
	t.Helper()
	need(t, "wixl", "msibuild")
	dir := t.TempDir()
	source, msi := filepath.Join(dir, "product.wxs"), filepath.Join(dir, "product.msi")
	if err := os.WriteFile(source, []byte(wxs), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := [][]string{{"wixl", "-a", "x64", "-o", msi, source}}
	if strings.Contains(wxs, `"HKMU"`) { // which wixl writes as 4, and Windows reads as -1
		commands = append(commands, []string{"msibuild", msi, "-q", "UPDATE `Registry` SET `Root` = -1 WHERE `Root` = 4"})
	}
	for _, command := range commands {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	return msi
}
