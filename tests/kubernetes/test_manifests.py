import pytest

from fluobook.kubernetes import manifests


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2024-04-01", "2024-04-01"),
        ("12:30", "12:30"),
        ("=", "="),
        ("1e3", 1000.0),
        ("0644", 420),
        ("0o644", 420),
        ("1.20", 1.2),
        ("true", True),
        ("yes", True),
        ('"yes"', "yes"),
        ("~", None),
        ("10.1.1", "10.1.1"),
        ("1_000", 1000),
    ],
)
def test_scalars_mean_what_they_mean_to_kubectl(written, means):
    value = manifests.load(f"a: {written}")[0]["a"]
    assert value == means
    assert type(value) is type(means)


def test_empty_documents_are_left_out_and_lists_are_opened():
    text = "---\n---\n# a comment\n---\napiVersion: v1\nkind: List\nitems: [{kind: A}, {kind: B}]\n---\n{kind: C}\n"
    assert [document["kind"] for document in manifests.load(text)] == ["A", "B", "C"]


def test_a_document_that_is_no_mapping_is_refused():
    with pytest.raises(ValueError, match="not a Kubernetes manifest but str"):
        manifests.load("just words")


def test_what_is_written_is_read_again_the_same():
    documents = [{"kind": "A", "data": {"n": "1e3", "on": "yes", "time": "12:30"}}, {"kind": "B"}]
    assert manifests.load(manifests.dump(documents)) == documents
