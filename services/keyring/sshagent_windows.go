package keyring

import (
	"fmt"
	"io"
	"os"
)

const systemPipe = `\\.\pipe\openssh-ssh-agent`

func dialAgent() (io.ReadWriteCloser, error) {
	pipe := os.Getenv("SSH_AUTH_SOCK")
	if pipe == "" {
		pipe = systemPipe
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: start it with `Start-Service ssh-agent`", err)
	}
	return f, nil
}
