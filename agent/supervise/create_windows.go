package supervise

import (
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"

	"chandler/events"
)

// userDesktop is what the user of a session sees.
const userDesktop = `winsta0\default`

// machine is what a start asks of Windows. Tests stand in for parts of it, because users are make-believe under Wine.
type machine interface {
	// UserToken gives the primary token of a session's user; the caller closes it.
	UserToken(session uint32) (windows.Token, error)
	// Create creates a process; the caller closes its handles.
	Create(c creation) (windows.ProcessInformation, error)
	Assign(job, process windows.Handle) error
}

// creation is a process as it is to be created. Package os/exec cannot: it knows no desktop.
type creation struct {
	Token                     windows.Token // 0: this process's own
	Program, CommandLine, Dir string
	Env                       []string
	Output                    *os.File // also of errors; its input is empty
	Flags                     uint32
	Desktop                   *string // nil: this process's own; empty: a new one, of the token's logon
	Hidden                    bool    // what it shows by default is not shown
	Show                      uint16  // how it is shown by default, SW_…; 0: as it likes
}

// creationOf decides how a program is created. It is always suspended and the first of its process group.
func creationOf(cmd *exec.Cmd, spec Spec, token windows.Token) creation {
	c := creation{Token: token, Program: cmd.Path, CommandLine: spec.CommandLine, Dir: cmd.Dir, Env: cmd.Environ(), Output: cmd.Stdout.(*os.File)}
	if c.CommandLine == "" {
		c.CommandLine = windows.ComposeCommandLine(cmd.Args)
	}
	visible, desktop := false, userDesktop
	if logon := spec.Logon; logon != nil {
		visible = logon.Visible
		if logon.Session == 0 && !visible { // a user who is not logged on has no right to the desktop of another
			desktop = ""
		}
		c.Desktop = &desktop
	}
	c.Flags, c.Hidden = windows.CREATE_SUSPENDED|windows.CREATE_NEW_PROCESS_GROUP|windows.CREATE_NO_WINDOW, true
	if visible {
		c.Flags, c.Hidden = windows.CREATE_SUSPENDED|windows.CREATE_NEW_PROCESS_GROUP|windows.CREATE_NEW_CONSOLE, spec.Window == events.WindowHidden
		switch spec.Window {
		case events.WindowMinimized:
			c.Show = windows.SW_SHOWMINIMIZED
		case events.WindowMaximized:
			c.Show = windows.SW_SHOWMAXIMIZED
		}
	}
	return c
}

// windowsItself is the machine outside tests.
type windowsItself struct{}

func (windowsItself) UserToken(session uint32) (token windows.Token, err error) {
	err = windows.WTSQueryUserToken(session, &token)
	return token, err
}

func (windowsItself) Assign(job, process windows.Handle) error {
	return windows.AssignProcessToJobObject(job, process)
}

func (windowsItself) Create(c creation) (created windows.ProcessInformation, err error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return created, err
	}
	defer nothing.Close()
	inherited, err := inheritable(nothing, c.Output)
	if err != nil {
		return created, err
	}
	defer closeAll(inherited)
	attributes, err := windows.NewProcThreadAttributeList(1)
	if err != nil {
		return created, err
	}
	defer attributes.Delete()
	// Nothing but these, whatever else of this process may be inherited.
	size := uintptr(len(inherited)) * unsafe.Sizeof(inherited[0])
	if err := attributes.Update(windows.PROC_THREAD_ATTRIBUTE_HANDLE_LIST, unsafe.Pointer(&inherited[0]), size); err != nil {
		return created, err
	}
	texts, err := wide(c.Program, c.CommandLine, c.Dir)
	if err != nil {
		return created, err
	}
	environment, err := environmentBlock(c.Env)
	if err != nil {
		return created, err
	}
	info := windows.StartupInfoEx{ProcThreadAttributeList: attributes.List()}
	info.Cb, info.Flags = uint32(unsafe.Sizeof(info)), windows.STARTF_USESTDHANDLES
	info.StdInput, info.StdOutput, info.StdErr = inherited[0], inherited[1], inherited[1]
	switch {
	case c.Hidden:
		info.Flags, info.ShowWindow = info.Flags|windows.STARTF_USESHOWWINDOW, windows.SW_HIDE
	case c.Show != 0:
		info.Flags, info.ShowWindow = info.Flags|windows.STARTF_USESHOWWINDOW, c.Show
	}
	if c.Desktop != nil {
		if info.Desktop, err = windows.UTF16PtrFromString(*c.Desktop); err != nil {
			return created, err
		}
	}
	flags := c.Flags | windows.CREATE_UNICODE_ENVIRONMENT | windows.EXTENDED_STARTUPINFO_PRESENT
	if c.Token == 0 {
		err = windows.CreateProcess(texts[0], texts[1], nil, nil, true, flags, environment, texts[2], &info.StartupInfo, &created)
	} else {
		err = windows.CreateProcessAsUser(c.Token, texts[0], texts[1], nil, nil, true, flags, environment, texts[2], &info.StartupInfo, &created)
	}
	runtime.KeepAlive(inherited)
	return created, err
}

// inheritable gives copies of the handles of files that a child can inherit. The caller closes them.
func inheritable(files ...*os.File) (copies []windows.Handle, err error) {
	self := windows.CurrentProcess()
	for _, file := range files {
		var copied windows.Handle
		if err := windows.DuplicateHandle(self, windows.Handle(file.Fd()), self, &copied, 0, true, windows.DUPLICATE_SAME_ACCESS); err != nil {
			closeAll(copies)
			return nil, err
		}
		copies = append(copies, copied)
	}
	return copies, nil
}

func closeAll(handles []windows.Handle) {
	for _, handle := range handles {
		windows.CloseHandle(handle)
	}
}

func wide(texts ...string) (pointers []*uint16, err error) {
	for _, text := range texts {
		pointer, err := windows.UTF16PtrFromString(text)
		if err != nil {
			return nil, err
		}
		pointers = append(pointers, pointer)
	}
	return pointers, nil
}

// environmentBlock joins the entries, each ended by a NUL and all by one more.
func environmentBlock(entries []string) (*uint16, error) {
	var block []uint16
	for _, entry := range entries {
		text, err := windows.UTF16FromString(entry)
		if err != nil {
			return nil, err
		}
		block = append(block, text...)
	}
	if len(block) == 0 {
		block = []uint16{0}
	}
	return &append(block, 0)[0], nil
}
