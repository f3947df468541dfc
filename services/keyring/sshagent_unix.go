//go:build unix

package keyring

import (
	"errors"
	"io"
	"net"
	"os"
)

func dialAgent() (io.ReadWriteCloser, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("SSH_AUTH_SOCK names none: start one with `eval $(ssh-agent)`, then `ssh-add`")
	}
	return net.DialTimeout("unix", socket, agentTime)
}
