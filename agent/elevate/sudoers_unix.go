//go:build unix

package elevate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxCommand bounds command and arguments together, in bytes: sudo puts them into one variable (SUDO_COMMAND), and Linux
// takes no string of more than 128 KiB.
const maxCommand = 100 << 10

// rule is one drop-in: one account, one command, one environment.
type rule struct {
	record  record
	records string   // directory
	command string   // path, cleaned
	args    []string // without the command
	digest  string   // SHA-256 of the command, hexadecimal
	dir     string
	envFile string
	env     []string // of the program
	version version  // of sudo
	until   time.Time
}

// header is the second line of a drop-in, by which a rule without a record is known to be ours and whose.
type header struct {
	Records string `json:"records"` // the directory of records of the agent that made it
	record
}

const (
	headerMark = "# chandler-agent "
	sudoTime   = "20060102150405Z" // as sudo reads times, to the second
)

// text is the whole drop-in. Its Defaults are of this command alone, so that nothing else the account does by sudo
// changes; but for those that let the agent ask sudo whether the rule counts, to which sudo applies no others. What they turn off are settings of the machine that need a terminal, or that let the caller's environment,
// umask or PATH through. fdexec: by path, because a script that is run from a descriptor does not know its own name;
// nobody but root can change the file between sudo's check of the digest and the start. NOTAFTER: a program needs its rule
// only to start, so that later nobody who has the account starts it a second time, nor at all where the agent is gone.
func (r rule) text() (string, error) {
	command, err := sudoersPath(r.command)
	if err != nil {
		return "", err
	}
	args, err := sudoersArgs(r.args, r.version.before(1, 9, 10))
	if err != nil {
		return "", err
	}
	if len(r.command)+len(args) > maxCommand {
		return "", fmt.Errorf("command and arguments are over %d bytes", maxCommand)
	}
	dir, err := sudoersWord(r.dir)
	if err != nil {
		return "", err
	}
	settings, err := r.settings()
	if err != nil {
		return "", err
	}
	untold := r.record
	untold.Notes = nil
	first, err := json.Marshal(header{Records: r.records, record: untold})
	if err != nil {
		return "", err
	}
	alias, user := aliasOf(r.record.Name), "#"+strconv.FormatUint(uint64(r.record.Account.UID), 10)
	return "# Made by chandler-agent for one run of one program, and removed when that is over.\n" +
		headerMark + string(first) + "\n" +
		"Cmnd_Alias " + alias + " = sha256:" + r.digest + " " + command + " " + args + "\n" +
		"Defaults!" + alias + " " + strings.Join(settings, ", ") + "\n" +
		"Defaults:" + user + " !requiretty, listpw=never\n" +
		user + " ALL = (#0) NOTAFTER=" + r.until.UTC().Format(sudoTime) + " CWD=" + dir + " NOPASSWD: NOSETENV: EXEC: " + alias + "\n", nil
}

func (r rule) settings() ([]string, error) {
	envFile, err := quoted(r.envFile)
	if err != nil {
		return nil, err
	}
	settings := []string{"!use_pty", "!requiretty", "env_reset", "!always_set_home", "!env_check", "!env_keep",
		"!exempt_group", "!stay_setuid", "!preserve_groups", "umask=0022", "!umask_override", "fdexec=never", "env_file=" + envFile}
	if own := sudosOwn(r.env); len(own) > 0 {
		keep, err := quoted(strings.Join(own, " "))
		if err != nil {
			return nil, err
		}
		settings = append(settings, "env_keep="+keep)
	}
	if path := variable(r.env, "PATH"); path != "" {
		search, err := quoted(path)
		if err != nil {
			return nil, err
		}
		settings = append(settings, "secure_path="+search)
	}
	return settings, nil
}

// aliasOf is unique for a file, as sudo requires of all its files together.
func aliasOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "CHANDLER_" + strings.ToUpper(hex.EncodeToString(sum[:12]))
}

// sudosOwn are the variables that sudo sets itself unless the rule keeps those it is called with. The rule names them with
// their values, so that no others are kept.
func sudosOwn(env []string) []string {
	var own []string
	for _, name := range []string{"HOME", "USER", "LOGNAME", "SHELL", "MAIL", "TERM"} {
		if value := variable(env, name); value != "" {
			own = append(own, name+"="+value)
		}
	}
	return own
}

// checkEnvironment says which variable cannot reach the program through sudo as it is.
func checkEnvironment(env []string) error {
	for _, entry := range sudosOwn(env) {
		if strings.ContainsAny(entry, "* \"\\") { // blanks part entries, * stands for anything
			return fmt.Errorf("the value of %s", quotedName(entry))
		}
	}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if name == "" || strings.ContainsAny(name, " #'\"") || control(name) {
			return fmt.Errorf("the name of variable %s", quotedName(entry))
		}
		if strings.ContainsRune(value, '#') || control(value) { // where comments begin, whatever the quotes
			return fmt.Errorf("the value of %s", quotedName(entry))
		}
	}
	return nil
}

func quotedName(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return strconv.Quote(name)
}

// envFile is the program's environment as sudo reads it: outer quotes go, the rest stays.
func envFile(env []string) []byte {
	var b bytes.Buffer
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Fprintf(&b, "%s='%s'\n", name, value)
	}
	return b.Bytes()
}

func variable(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value
		}
	}
	return ""
}

var (
	errControl = errors.New("a line break or another control character")
	errEmpty   = errors.New("one argument that is empty")
)

// sudoersPath writes a path that matches only itself. A path is a pattern of fnmatch too, in which sudoers knows no
// backslash for the special characters; a set of one does the same.
func sudoersPath(path string) (string, error) {
	if strings.ContainsRune(path, '\\') {
		return "", errors.New("a backslash in the path of the command")
	}
	return sudoersText(path, func(b *strings.Builder, r rune) {
		switch r {
		case '*', '?', '[':
			b.WriteString("[" + string(r) + "]")
		case ',', ':', '=', ' ', '#':
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	})
}

// sudoersArgs writes arguments as a pattern that matches only them, joined by blanks. None is written "", which permits
// none, where nothing would permit any. A first ^ would begin a regular expression from sudo 1.9.10 on; older ones know
// no backslash before it.
func sudoersArgs(args []string, old bool) (string, error) {
	if len(args) == 0 {
		return `""`, nil
	}
	if len(args) == 1 && args[0] == "" {
		return "", errEmpty
	}
	var b strings.Builder
	for i, arg := range args {
		if i > 0 {
			if arg == "" || args[i-1] == "" { // bare blanks are one
				b.WriteByte('\\')
			}
			b.WriteByte(' ')
		}
		text, err := sudoersText(arg, func(b *strings.Builder, r rune) {
			switch r {
			case '*', '?', '[', '"':
				b.WriteString("[" + string(r) + "]")
			case '\\':
				b.WriteString(`\\\\`) // once for the file, once for the pattern
			case ',', ':', '=', ' ', '#':
				b.WriteString(`\` + string(r))
			default:
				b.WriteRune(r)
			}
		})
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	text := b.String()
	if text[0] == '^' && !old {
		text = `\` + text
	}
	if start, found := strings.CutSuffix(text, `\ `); found { // at the end of a line it would continue the line
		text = start + `[\ ]`
	}
	return text, nil
}

// sudoersWord writes a directory, which is no pattern.
func sudoersWord(text string) (string, error) {
	return sudoersText(text, func(b *strings.Builder, r rune) {
		if strings.ContainsRune(`#>!=:,() "\`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	})
}

// quoted writes the value of a setting.
func quoted(text string) (string, error) {
	if strings.ContainsAny(text, `"\`) {
		return "", fmt.Errorf("a quote or a backslash in %q", text)
	}
	return sudoersText(`"`+text+`"`, func(b *strings.Builder, r rune) { b.WriteRune(r) })
}

func sudoersText(text string, write func(*strings.Builder, rune)) (string, error) {
	if control(text) {
		return "", errControl
	}
	var b strings.Builder
	for _, r := range text {
		write(&b, r)
	}
	return b.String(), nil
}

// control finds what a line of a file cannot hold, and text that is none.
func control(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// version of sudo.
type version struct{ major, minor, patch int }

var versionForm = regexp.MustCompile(`(?m)^Sudo version ([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})`)

// parseVersion reads what sudo -V says. sudo-rs, which has neither digests nor a working directory, says it otherwise.
func parseVersion(text string) (version, bool) {
	m := versionForm.FindStringSubmatch(text)
	if m == nil {
		return version{}, false
	}
	var v version
	for i, part := range []*int{&v.major, &v.minor, &v.patch} {
		*part, _ = strconv.Atoi(m[i+1]) // at most four digits
	}
	return v, true
}

func (v version) before(major, minor, patch int) bool {
	return slices.Compare([]int{v.major, v.minor, v.patch}, []int{major, minor, patch}) < 0
}

// parseHeader finds out whose a rule is; false where it is not ours.
func parseHeader(text []byte) (header, bool) {
	_, rest, found := bytes.Cut(text, []byte("\n"))
	line, _, ended := bytes.Cut(rest, []byte("\n"))
	data, ours := bytes.CutPrefix(line, []byte(headerMark))
	if !found || !ended || !ours || len(data) > maxRecord {
		return header{}, false
	}
	var h header
	if json.Unmarshal(data, &h) != nil || h.record.valid() != nil {
		return header{}, false
	}
	return h, true
}
