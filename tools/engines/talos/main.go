// Talos' own verdict on machine configurations. Reads a JSON list of texts from standard input, and writes a JSON list:
// for each text the message with which a node on nocloud refuses it, or "". With the argument `merge` it reads a list of
// pairs, a configuration and a patch each, and writes the merged configurations; "" for a patch that is refused.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
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

func merged(base, text string) string {
	patch, err := configpatcher.LoadPatch([]byte(text))
	if err != nil {
		return ""
	}
	config, err := configpatcher.Apply(configpatcher.WithBytes([]byte(base)), []configpatcher.Patch{patch})
	if err != nil {
		return ""
	}
	result, err := config.Bytes()
	if err != nil {
		return ""
	}
	return string(result)
}

// answers reads questions from standard input, and writes the answer to each.
func answers[T any](answer func(T) string) error {
	var questions []T
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		return err
	}
	texts := make([]string, len(questions))
	for i, question := range questions {
		texts[i] = answer(question)
	}
	return json.NewEncoder(os.Stdout).Encode(texts)
}

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "merge" {
		err = answers(func(pair [2]string) string { return merged(pair[0], pair[1]) })
	} else {
		err = answers(verdict)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
