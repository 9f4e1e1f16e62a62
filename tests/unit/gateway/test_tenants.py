import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from gateway.refusals import Refusal, RefusalCode
from gateway.settings import IPADDR, GatewaySettings, TenantSettings
from gateway.tenants import Tenants, check_tenants

KEY = "0f3e9a7c51d2b846"
OTHER_KEY = "another-key-of-a-tenant"


def keyed(key: str, **more: object) -> TenantSettings:
    return TenantSettings.model_validate({"key": key, **more})


def refusal(tenants: Tenants, key: str | None, peer: str | None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        tenants.identify(key, peer)
    return caught.value


def test_a_key_finds_its_tenant_among_several() -> None:
    tenants = Tenants({"first": keyed(KEY), "second": keyed(OTHER_KEY)})
    assert tenants.identify(KEY, "203.0.113.9").name == "first"
    assert tenants.identify(OTHER_KEY, "203.0.113.9").name == "second"


def test_an_unknown_key_is_refused_401_without_repeating_it() -> None:
    refused = refusal(Tenants({"first": keyed(KEY)}), KEY + "x", "127.0.0.1")
    assert (refused.code, refused.status) == (RefusalCode.UNKNOWN_KEY, 401)
    assert KEY not in refused.message + refused.remedy


@given(st.text(max_size=300))
def test_no_text_but_the_key_opens_a_keyed_tenant(text: str) -> None:
    if text in (KEY, IPADDR):
        return
    assert refusal(Tenants({"first": keyed(KEY)}), text, "127.0.0.1").status == 401


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_ipaddr_lets_loopback_in_by_default(peer: str) -> None:
    assert Tenants({"default": TenantSettings()}).identify(IPADDR, peer).name == "default"


@pytest.mark.parametrize("peer", ["10.0.0.1", "100.64.0.1", "::ffff:10.0.0.1", "2001:db8::1", "not an address", None])
def test_ipaddr_keeps_everyone_else_out_with_403(peer: str | None) -> None:
    refused = refusal(Tenants({"default": TenantSettings()}), IPADDR, peer)
    assert (refused.code, refused.status) == (RefusalCode.NETWORK_NOT_ALLOWED, 403)


def test_ipaddr_tells_tenants_apart_by_their_networks() -> None:
    tenants = Tenants(
        {
            "inner": TenantSettings.model_validate({"networks": ["10.1.0.0/16"]}),
            "outer": TenantSettings.model_validate({"networks": ["10.2.0.0/16", "2001:db8::/32"]}),
        }
    )
    assert tenants.identify(IPADDR, "10.1.2.3").name == "inner"
    assert tenants.identify(IPADDR, "2001:db8::5").name == "outer"
    assert refusal(tenants, IPADDR, "10.3.0.1").status == 403


def test_ipaddr_never_reaches_a_tenant_that_has_a_key() -> None:
    assert refusal(Tenants({"first": keyed(KEY)}), IPADDR, "127.0.0.1").status == 403


def test_no_key_at_all_says_how_to_send_one_where_every_tenant_has_one() -> None:
    refused = refusal(Tenants({"first": keyed(KEY)}), None, "127.0.0.1")
    assert refused.status == 401
    assert "Bearer" in refused.remedy


def test_a_key_with_networks_works_from_these_networks_only() -> None:
    tenants = Tenants({"first": keyed(KEY, networks=["10.0.0.0/8"])})
    assert tenants.identify(KEY, "10.4.4.4").name == "first"
    assert refusal(tenants, KEY, "192.0.2.1").status == 403


def test_two_keyless_tenants_with_overlapping_networks_are_a_settings_error() -> None:
    with pytest.raises(ValueError, match=r"tenants\.a and tenants\.b .*overlapping"):
        Tenants(
            {
                "a": TenantSettings.model_validate({"networks": ["10.0.0.0/8"]}),
                "b": TenantSettings.model_validate({"networks": ["10.9.0.0/16"]}),
            }
        )


def test_the_same_key_twice_is_a_settings_error_that_does_not_show_it() -> None:
    with pytest.raises(ValueError, match=r"tenants\.a\.key and tenants\.b\.key") as caught:
        Tenants({"a": keyed(KEY), "b": keyed(KEY)})
    assert KEY not in str(caught.value)


def test_no_tenant_is_a_settings_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Tenants({})


def test_a_name_that_messages_cannot_carry_is_a_settings_error() -> None:
    with pytest.raises(ValueError, match=r"tenants\.Big Name"):
        Tenants({"Big Name": TenantSettings()})


@pytest.mark.parametrize("key", ["", "short", IPADDR, "with/a/slash-in-it", "ümläute-sind-nichts", "x" * 257])
def test_a_key_that_cannot_travel_in_a_url_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        keyed(key)
    assert key in ("", IPADDR) or key not in str(caught.value)


def test_a_tenants_key_does_not_show_in_its_settings() -> None:
    assert KEY not in repr(TenantSettings(key=SecretStr(KEY)))


def test_a_body_limit_above_the_room_for_all_bodies_is_a_settings_error() -> None:
    with pytest.raises(ValidationError, match="max_in_flight_bytes"):
        GatewaySettings(max_body_bytes=2048, max_in_flight_bytes=1024)


@pytest.mark.parametrize("name", ["a__b", "a_"])
def test_a_name_that_an_environment_variable_would_split_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"tenants.{name}"):
        check_tenants({name: TenantSettings()})


def test_the_same_token_for_origins_twice_is_a_settings_error_that_does_not_show_it() -> None:
    token = "a-token-that-is-secret"
    tenants = {
        name: TenantSettings.model_validate({"key": f"the-key-of-{name}", "origins_token": token}) for name in "ab"
    }
    with pytest.raises(ValueError, match=r"tenants\.a\.origins_token and tenants\.b\.origins_token") as raised:
        check_tenants(tenants)
    assert token not in str(raised.value)
    with pytest.raises(ValidationError, match="16 characters"):
        TenantSettings.model_validate({"origins_token": "short"})
