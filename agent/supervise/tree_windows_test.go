package supervise_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

// machine stands in for Windows where Wine knows no users: every session's user is this process's own.
type machine struct {
	supervise.Machine
	token     func(session uint32) (windows.Token, error)
	refuseJob error
	dry       bool // nothing is created
	created   []supervise.Creation
}

var errDry = errors.New("nothing is created here")

func (m *machine) UserToken(session uint32) (windows.Token, error) { return m.token(session) }

func (m *machine) Create(c supervise.Creation) (windows.ProcessInformation, error) {
	m.created = append(m.created, c)
	if m.dry {
		return windows.ProcessInformation{}, errDry
	}
	return m.Machine.Create(c)
}

func (m *machine) Assign(job, process windows.Handle) error {
	if m.refuseJob != nil {
		return m.refuseJob
	}
	return m.Machine.Assign(job, process)
}

// ownToken is a primary token of this process's user.
func ownToken(t *testing.T) windows.Token {
	t.Helper()
	var own, primary windows.Token
	if err := windows.OpenProcessToken(windows.CurrentProcess(), windows.TOKEN_ALL_ACCESS, &own); err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := windows.DuplicateTokenEx(own, windows.TOKEN_ALL_ACCESS, nil, windows.SecurityImpersonation, windows.TokenPrimary, &primary); err != nil {
		t.Fatal(err)
	}
	return primary
}

// commandOf is what a supervisor makes of a spec; what the program writes is dropped.
func commandOf(t *testing.T, spec supervise.Spec) *exec.Cmd {
	t.Helper()
	output, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	return &exec.Cmd{Path: spec.Argv[0], Args: spec.Argv, Dir: spec.Dir, Env: spec.Env, Stdout: output, Stderr: output}
}

// handleFlags asks about a handle; false: it is closed.
func handleFlags(handle windows.Handle) (flags uint32, open bool) {
	r, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetHandleInformation").Call(uintptr(handle), uintptr(unsafe.Pointer(&flags)))
	return flags, r != 0
}

// It is not parallel: what others open must not get the number of a handle that is closed here.
func TestALogonDecidesTokenDesktopAndWindow(t *testing.T) {
	const always = windows.CREATE_SUSPENDED | windows.CREATE_NEW_PROCESS_GROUP
	inherited := uint64(ownToken(t))
	desktop := func(name string) *string { return &name }
	for name, c := range map[string]struct {
		logon   *supervise.Logon
		token   windows.Token // 0: that of session 7, or none
		session bool
		desktop *string
		flags   uint32
		hidden  bool
		window  string // that the program asks for
		show    uint16
	}{
		"the agent's own identity stays where it is, unseen":    {nil, 0, false, nil, windows.CREATE_NO_WINDOW, true, "", 0},
		"a user's program runs on the user's desktop, unseen":   {&supervise.Logon{Session: 7}, 0, true, desktop(`winsta0\default`), windows.CREATE_NO_WINDOW, true, "", 0},
		"the user sees what is to be seen":                      {&supervise.Logon{Session: 7, Visible: true}, 0, true, desktop(`winsta0\default`), windows.CREATE_NEW_CONSOLE, false, "", 0},
		"as a small window":                                     {&supervise.Logon{Session: 7, Visible: true}, 0, true, desktop(`winsta0\default`), windows.CREATE_NEW_CONSOLE, false, events.WindowMinimized, windows.SW_SHOWMINIMIZED},
		"as a large window":                                     {&supervise.Logon{Session: 7, Visible: true}, 0, true, desktop(`winsta0\default`), windows.CREATE_NEW_CONSOLE, false, events.WindowMaximized, windows.SW_SHOWMAXIMIZED},
		"with its window hidden":                                {&supervise.Logon{Session: 7, Visible: true}, 0, true, desktop(`winsta0\default`), windows.CREATE_NEW_CONSOLE, true, events.WindowHidden, 0},
		"what nobody sees has no window to show":                {&supervise.Logon{Session: 7}, 0, true, desktop(`winsta0\default`), windows.CREATE_NO_WINDOW, true, events.WindowMaximized, 0},
		"an account that is not logged on gets its own desktop": {&supervise.Logon{Token: inherited}, windows.Token(inherited), false, desktop(""), windows.CREATE_NO_WINDOW, true, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var users windows.Token
			m := &machine{Machine: supervise.WindowsItself(), dry: true, token: func(session uint32) (windows.Token, error) {
				if session != 7 {
					t.Errorf("asked for the user of session %d", session)
				}
				users = ownToken(t)
				return users, nil
			}}
			spec := specOf(t, supervisetest.Program("exit", "0"))
			spec.Logon, spec.Window = c.logon, c.window
			if _, err := supervise.StartOn(m, commandOf(t, spec), spec); !errors.Is(err, errDry) {
				t.Fatal(err)
			}
			want := c.token
			if c.session {
				want = users
			}
			got := m.created[0]
			if got.Token != want || got.Flags != always|c.flags || got.Hidden != c.hidden || got.Show != c.show {
				t.Errorf("token %v, flags %x, hidden %v, shown %d", got.Token, got.Flags, got.Hidden, got.Show)
			}
			if (got.Desktop == nil) != (c.desktop == nil) || got.Desktop != nil && *got.Desktop != *c.desktop {
				t.Errorf("desktop %v", got.Desktop)
			}
			if _, open := handleFlags(windows.Handle(want)); want != 0 && open {
				t.Error("the token is still open when the program runs")
			}
		})
	}
}

func TestAProgramOfNobodyIsNotStarted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		logon supervise.Logon
		err   error // of asking for the session's user
	}{
		"its session has gone":         {supervise.Logon{Session: 7}, windows.ERROR_FILE_NOT_FOUND},
		"its user has logged off":      {supervise.Logon{Session: 7}, windows.ERROR_NO_TOKEN},
		"the agent is not LocalSystem": {supervise.Logon{Session: 7}, windows.ERROR_PRIVILEGE_NOT_HELD},
		"its token is closed":          {supervise.Logon{Token: 0x7ffffff0}, nil},
		"its token is something else":  {supervise.Logon{Token: uint64(windows.Stdout)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{Machine: supervise.WindowsItself(), token: func(uint32) (windows.Token, error) { return 0, c.err }}
			spec := specOf(t, supervisetest.Program("exit", "0"))
			spec.Logon = &c.logon
			_, err := supervise.StartOn(m, commandOf(t, spec), spec)
			if err == nil || supervise.ErrorKind(err) != supervise.NoLogon || len(m.created) > 0 {
				t.Errorf("%v is of kind %s; created %d", err, supervise.ErrorKind(err), len(m.created))
			}
		})
	}
}

func TestAProgramOfAUserThatNoJobTakesIsKilledByDescent(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	m := &machine{Machine: supervise.WindowsItself(), refuseJob: windows.ERROR_ACCESS_DENIED, token: func(uint32) (windows.Token, error) { return ownToken(t), nil }}
	spec := specOf(t, meeting.Program("p"))
	spec.Logon = &supervise.Logon{Session: 7}
	cmd := commandOf(t, spec)
	kill, err := supervise.StartOn(m, cmd, spec)
	if err != nil {
		t.Fatal(err)
	}
	program := meeting.Guest(t, "p")
	program.Do(t, "child q")
	child := meeting.Guest(t, "q")
	if err := kill(); err != nil {
		t.Error(err)
	}
	program.Gone(t)
	child.Gone(t)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("it ended with %d", code)
	}
}

func TestWithoutAJobTheAgentsOwnProgramsAreNotStarted(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	m := &machine{Machine: supervise.WindowsItself(), refuseJob: windows.ERROR_ACCESS_DENIED}
	spec := specOf(t, meeting.Program("p"))
	if _, err := supervise.StartOn(m, commandOf(t, spec), spec); !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.Error(err)
	}
	meeting.Absent(t, "p")
}

func TestASupervisorInheritsTheTokenAndUsesIt(t *testing.T) {
	t.Parallel()
	token := ownToken(t)
	spec := specOf(t, supervisetest.Program("exit", "23"))
	spec.Logon = &supervise.Logon{Token: uint64(token)}
	run := begin(t, supervise.Start, filepath.Join(supervisetest.TempDir(t), "run"), spec)
	if flags, open := handleFlags(windows.Handle(token)); !open || flags&windows.HANDLE_FLAG_INHERIT != 0 {
		t.Errorf("whatever the agent starts next inherits the token: flags %x, open %v", flags, open)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
	if got := wait(t, run); !got.Started || got.ExitCode != 23 {
		t.Errorf("outcome %+v", got)
	}
}

func TestAClosedTokenStartsNoSupervisor(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(supervisetest.TempDir(t), "run")
	spec := specOf(t, supervisetest.Program("exit", "0"))
	spec.Logon = &supervise.Logon{Token: 0x7ffffff0}
	if _, err := supervise.Start(supervisetest.Supervisor(), dir, spec); err == nil {
		t.Fatal("started")
	}
	run, err := supervise.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, run, supervise.NotStarted)
}
