"""Words that shops use for columns and event types, in a few languages. They support what the values show."""

from __future__ import annotations

import re
from collections.abc import Mapping

from seqrec.shop.project import EventType

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "item": ("item", "product", "sku", "asin", "article", "artikel", "artikelnummer", "artnr", "produkt", "produit",
             "producto", "prodotto", "stockcode", "variant", "movie", "book", "track", "handle", "itemid", "productid"),
    "user": ("user", "customer", "visitor", "client", "account", "member", "kunde", "kundennummer", "kundennr",
             "nutzer", "besucher", "utilisateur", "cliente", "usuario", "buyer", "shopper", "userid",
             "customerid", "visitorid", "email", "uid", "person"),
    "time": ("time", "timestamp", "date", "datetime", "created", "datum", "zeit", "zeitpunkt", "uhrzeit", "when", "ts",
             "at", "occurred", "fecha", "horodatage", "unixtime"),
    "type": ("event", "type", "action", "kind", "activity", "ereignis", "aktion", "behavior", "behaviour", "typ",
             "interaction", "eventtype"),
    "value": ("rating", "stars", "score", "quantity", "qty", "menge", "anzahl", "count", "value", "wert", "units"),
    "session": ("session", "visit", "sessionid", "sitzung", "sid"),
    "title": ("title", "name", "titel", "bezeichnung", "productname", "produktname", "nom", "nombre", "titre", "titolo",
              "artikelbezeichnung", "libelle", "label", "headline"),
    "brand": ("brand", "manufacturer", "vendor", "marke", "hersteller", "marque", "author", "artist", "autor", "marca"),
    "category": ("category", "categories", "kategorie", "kategorien", "genre", "genres", "department", "collection",
                 "warengruppe", "categorie", "producttype", "type", "tags", "tag", "keywords", "schlagworte", "sparte"),
    "description": ("description", "beschreibung", "details", "body", "text", "features", "summary", "langtext",
                    "kurztext", "kurzbeschreibung", "descripcion", "bullets"),
    "price": ("price", "preis", "prix", "precio", "cost", "msrp", "uvp", "listprice", "amount", "betrag", "unitprice"),
    "code": ("ean", "gtin", "upc", "isbn", "barcode", "code", "nr", "nummer", "number", "no", "id", "mpn", "hs", "sku",
             "plu", "zip", "uuid", "guid"),
    "available": ("available", "availability", "instock", "stock", "verfügbar", "verfuegbar", "verfügbarkeit", "active",
                  "aktiv", "published", "status", "lagerbestand", "bestand", "inventory", "lager", "disponible",
                  "enabled", "lieferbar"),
}  # fmt: skip

_HISTORY, _IGNORE = EventType(), EventType(history=False, ignore=True)
_NEGATIVE = EventType(history=False, negative=True)
EVENT_TYPES: tuple[tuple[EventType, str, tuple[str, ...]], ...] = (
    (_NEGATIVE, "the user does not want it", (
        "dislike", "thumbsdown", "notinterested", "hide", "return", "refund", "cancel", "remove", "unlike", "downvote",
        "removefromcart", "retoure", "storno", "block", "skip", "delete", "unfavorite")),
    (_IGNORE, "only shown, not chosen", (
        "impression", "shown", "exposure", "display", "search", "login", "logout", "session", "render", "served",
        "listview", "error", "pageload")),
    (_HISTORY, "bought or put aside", (
        "purchase", "order", "buy", "transaction", "checkout", "sale", "kauf", "bestellung", "achat", "conversion",
        "cart", "addtocart", "basket", "warenkorb", "wishlist", "favorite", "favourite", "like", "save", "bookmark",
        "merkzettel", "rent", "subscribe", "pay", "compra", "panier")),
    (_HISTORY, "looked at", (
        "view", "click", "detail", "pageview", "visit", "open", "ansicht", "klick", "play", "watch", "read", "listen",
        "detailview", "productview", "vue", "browse", "pv", "rate", "rating", "review")),
)  # fmt: skip
"""What events are worth, by words in the name of their type; the first that fits."""


def words_of(name: str) -> list[str]:
    """The words of a column's name, and the whole name without separators. `ProductID` has product, id, productid."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = [word for word in re.split(r"[^\w]+|_", spaced.lower()) if word]
    return [*words, "".join(words)]


def has_hint(name: str, role: str) -> bool:
    return any(word in COLUMNS[role] for word in words_of(name))


def worth_of(type_name: str) -> tuple[EventType, str]:
    """What an event type is worth, and why."""
    words = words_of(type_name)
    joined = words[-1] if words else ""
    for rule, why, known in EVENT_TYPES:
        if any(word in known or word.removesuffix("s") in known or word.removesuffix("ed") in known for word in words):
            return rule, why
        if any(len(word) > 4 and word in joined for word in known):
            return rule, why
    return _HISTORY, "an unknown word: check it"
