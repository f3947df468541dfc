package execute

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// lacking are the words in which programs say that they were refused for want of rights. A word that occurs in
// what goes well too is not among them.
var lacking = regexp.MustCompile(`(?i)permission denied|operation not permitted|access (is )?denied|requires? (superuser|root|administrator|elevat)|superuser privilege` +
	`|must be (run as |running as )?(root|superuser|an administrator)|(are|need to be) you root|are you root|need to be root|not (running as )?root|root privileges|elevation is required|requested operation requires elevation|eacces|eperm|insufficient privileges`)

// lackingCodes are exit codes of Windows that say so without words: access denied, elevation required, and what msiexec
// gives where a policy or a right is missing. No other system has codes as large.
var lackingCodes = []int{740, 1303, 1314, 1625, 1925, -2147024891, -2147024156}

// Bounds of what is looked at and of what is quoted.
const (
	lackingTail = 64 << 10
	lackingLine = 300
)

// LacksRights says whether a program that ended with the code, and whose output is in the file, failed because whoever
// ran it may not do what it tried; operation is its own word for that, or the code.
func LacksRights(code int, output string) (operation string, lacks bool) {
	if line := lackingWords(output); line != "" {
		return line, true
	}
	if saysDenied(code) || slices.Contains(lackingCodes, code) || slices.Contains(lackingCodes, int(int32(code))) {
		return fmt.Sprintf("exit code %d", code), true
	}
	return "", false
}

// lackingWords is the last line that says so: what came before it may have been passed over.
func lackingWords(output string) (found string) {
	file, err := os.Open(output)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > lackingTail {
		if _, err := file.Seek(-lackingTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	lines := bufio.NewScanner(io.LimitReader(file, lackingTail))
	lines.Buffer(make([]byte, 4096), lackingTail+1)
	for lines.Scan() {
		if line := strings.TrimSpace(strings.ToValidUTF8(lines.Text(), "\uFFFD")); lacking.MatchString(line) {
			found = line
		}
	}
	if len(found) > lackingLine {
		found = strings.ToValidUTF8(found[:lackingLine], "") + "…"
	}
	return found
}
