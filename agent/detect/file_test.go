package detect

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chandler/events"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tool")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	digest := events.DigestOf([]byte("hello"))
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		link = file // Windows without the right to make links
	}
	tests := []struct {
		name        string
		rule        events.Detect
		state       State
		explanation string
	}{
		{"a file that exists is installed", events.Detect{File: file}, Installed, "exists"},
		{"a link to it is too", events.Detect{File: link}, Installed, "exists"},
		{"a directory is too", events.Detect{File: dir}, Installed, "exists"},
		{"a file that does not exist is not", events.Detect{File: file + "x"}, NotInstalled, "does not exist"},
		{"nothing exists below a file", events.Detect{File: filepath.Join(file, "x")}, NotInstalled, "does not exist"},
		{"the digest must be the file's", events.Detect{File: file, SHA256: digest}, Installed, digest},
		{"capitals in a digest do not matter", events.Detect{File: file, SHA256: strings.ToUpper(digest)}, Installed, digest},
		{"another digest means not installed, and says which", events.Detect{File: file, SHA256: strings.Repeat("0", 64)}, NotInstalled, digest},
		{"a directory has no digest", events.Detect{File: dir, SHA256: digest}, NotInstalled, "not a regular file"},
		{"a relative path claims nothing", events.Detect{File: "tool"}, Unknown, "absolute"},
		{"a path with a NUL claims nothing", events.Detect{File: file + "\x00"}, Unknown, "absolute"},
		{"a path that cannot be examined claims nothing", events.Detect{File: filepath.Join(dir, strings.Repeat("x", 5000))}, Unknown, "examined"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want(t, File{}.Detect(t.Context(), tt.rule), tt.state, tt.explanation)
		})
	}
	t.Run("nobody waits for a file when the time is up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		want(t, detectFile(ctx, file, digest), Unknown, "canceled")
	})
}
