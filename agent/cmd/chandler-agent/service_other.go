//go:build !linux

package main

import (
	"errors"
	"fmt"

	"github.com/kardianos/service"
)

// native is launchd or the service control manager.
type native struct {
	service.Service
	command []string // the program and its arguments
}

func systemManager(root, program, config string) (manager, error) {
	if root != "" {
		return nil, errors.New("--root is for images of systems with systemd")
	}
	command := []string{program, "run", "--config", config}
	s, err := service.New(nobody{}, &service.Config{
		Name: serviceName, DisplayName: "Chandler agent", Description: "installs what signed orders say",
		Executable: command[0], Arguments: command[1:], Option: serviceOptions(),
	})
	if err != nil {
		return nil, fmt.Errorf("open service manager: %w", err)
	}
	return native{s, command}, nil
}

// nobody is what is run where the service is only managed.
type nobody struct{}

func (nobody) Start(service.Service) error { return nil }
func (nobody) Stop(service.Service) error  { return nil }

func (n native) install() (changed bool, err error) {
	if !n.installed() {
		return true, n.Install()
	}
	changed, err = n.redirect()
	if err != nil {
		return changed, fmt.Errorf("change the service's command: %w", err)
	}
	return changed, nil
}

func (n native) uninstall() (changed bool, err error) {
	if !n.installed() {
		return false, nil
	}
	if err := n.stop(); err != nil {
		return false, err
	}
	return true, n.Uninstall()
}

func (n native) installed() bool {
	_, err := n.Status()
	return !errors.Is(err, service.ErrNotInstalled)
}

func (n native) running() bool {
	status, err := n.Status()
	return err == nil && status == service.StatusRunning
}

func (n native) start() error {
	if n.running() {
		return nil
	}
	return n.Start()
}

func (n native) stop() error {
	if !n.running() {
		return nil
	}
	return n.Stop()
}

func (n native) restart() error {
	if err := n.stop(); err != nil {
		return err
	}
	return n.Start()
}
