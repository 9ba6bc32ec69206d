// Talos' own verdict on machine configurations. Reads a JSON list of texts from standard input, and writes a JSON list:
// for each text the message with which a node on nocloud refuses it, or "".
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/validation"
)

type nocloud struct{}

func (nocloud) String() string        { return "nocloud" }
func (nocloud) RequiresInstall() bool { return false }
func (nocloud) InContainer() bool     { return false }

func verdict(text string) string {
	config, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		return err.Error()
	}
	if _, err = config.Validate(nocloud{}, validation.WithLocal()); err != nil {
		return err.Error()
	}
	return ""
}

func main() {
	var texts []string
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	verdicts := make([]string, len(texts))
	for i, text := range texts {
		verdicts[i] = verdict(text)
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		os.Exit(1)
	}
}
