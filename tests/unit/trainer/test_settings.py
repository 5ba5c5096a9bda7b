import pytest

from trainer.core.ppo_config import PPOConfig
from trainer.settings import TrainerSettings


def test_settings_come_from_the_environment_and_change_the_defaults_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS", "host:1")
    monkeypatch.setenv("THUMBWHEEL_PPO__ITERATIONS", "3")
    monkeypatch.setenv("THUMBWHEEL_PPO__TEMPERATURE", "0.5")
    settings = TrainerSettings()
    config = settings.cycle_config(n_parameters=10**8, dtype="float32", device="cpu", threads=1, seed=4)
    assert settings.kafka.bootstrap_servers == "host:1"
    assert (config.ppo.iterations, config.ppo.sampling.temperature, config.seed) == (3, 0.5, 4)
    assert config.ppo.learning_rate == PPOConfig.for_size(10**8).learning_rate


def test_a_cycle_configuration_survives_json() -> None:
    config = TrainerSettings().cycle_config(n_parameters=1, dtype="float32", device="cpu", threads=1, seed=0)
    assert type(config).model_validate_json(config.model_dump_json()) == config
