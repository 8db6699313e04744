"""A certificate authority that could not be read once stopped every endpoint's deliveries."""

import pytest

from dispatcher.config.settings_reader import load_settings
from dispatcher.outbound.client import trust_problems


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("no certificate", "no certificate in PEM")]
)
def test_an_unusable_ca_file_is_said_before_the_start(tmp_path, content, reason):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    settings = load_settings(
        None, {"DISPATCHER_EGRESS__CA_FILE": str(path)}, working_directory=tmp_path
    )
    [problem] = trust_problems(settings)
    assert problem.startswith("egress.ca_file: ")
    assert reason in problem


def test_without_a_ca_file_nothing_is_wrong(tmp_path):
    assert trust_problems(load_settings(None, {}, working_directory=tmp_path)) == []
