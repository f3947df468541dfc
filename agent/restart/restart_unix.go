//go:build unix

package restart

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// maxAnswer is how much of a command's words an error holds, in bytes.
const maxAnswer = 1 << 10

func restart(ctx context.Context, why string) error {
	name, args := command(strings.Map(printable, why))
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = bytes.TrimSpace(out[:min(len(out), maxAnswer)])
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// printable keeps what is shown on terminals from controlling them.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
